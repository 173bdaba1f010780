"""Does a model on two GPUs answer the same through FlagCX as through NCCL, all of it, and as fast as SGLang alone?

SGLang with ``tp_size=2``, graphs on, a Llama of 8 billion random weights: alone, as it is by default; with FlagCX
installed and nothing set, where small sums stay with SGLang's own kernels; with FlagCX asked for, which serves all of
them; and with NCCL alone, which FlagCX stands on. The engines live side by side and answer in turns. One more through
FlagCX, with a trace, answers the same prompts: it counts the collectives that FlagCX served, and those that it did not.

    FLAGCX_PATH=... python -m benchmarks.tensor_parallel [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.engines import ALONE, Engine, Tokens, Variant, start_all
from benchmarks.figures import Figures, parser
from benchmarks.loads import ARGUMENTS, SHAPES, Work, compare, model
from sglang_fl.trace_report import read_report

SHAPE = "llama8b"
INSTALLED = Variant("installed")
FLAGCX = Variant("flagcx", (("SGLANG_FL_DIST_BACKEND", "flagcx"),))
NCCL = Variant("nccl", (("SGLANG_FL_DIST_BACKEND", "nccl"),), (("disable_custom_all_reduce", True),))
BOUNDS = {INSTALLED.name: 0.97}
BOUNDS_OVER_NCCL = {FLAGCX.name: 0.97}

SAME = Work(requests=16, prompt_tokens=32, new_tokens=64)
"""Whose tokens are compared."""


def main() -> None:
    """Measures, and exits 1 when a bound was missed."""
    options = parser(__doc__ or "")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    figures, vocabulary = Figures(args.json), SHAPES[SHAPE]["vocab_size"]
    with tempfile.TemporaryDirectory(prefix="sglang-fl-tp-") as scratch, ExitStack() as stack:
        trace = Path(scratch, "trace")
        traced = Variant(
            "traced", (*FLAGCX.settings, ("SGLANG_FL_TRACE", "calls"), ("SGLANG_FL_TRACE_DIR", str(trace)))
        )
        arguments = {**ARGUMENTS, "tp_size": 2, "model_path": str(model(SHAPE, Path(scratch, SHAPE)))}
        variants = [ALONE, INSTALLED, FLAGCX, NCCL, traced]
        engines = start_all(stack, variants, arguments, args.logs or Path(scratch, "logs"))
        _compare_tokens(engines, vocabulary, figures)
        _count(trace, figures)
        alone, installed, flagcx, nccl, _ = engines
        compare("tensor_parallel", [alone, installed, flagcx], vocabulary, BOUNDS, figures)
        compare("tensor_parallel.over_nccl", [nccl, flagcx], vocabulary, BOUNDS_OVER_NCCL, figures)
    figures.finish()


def _compare_tokens(engines: list[Engine], vocabulary: int, figures: Figures) -> None:
    answers = {engine.variant.name: _answers(engine, vocabulary) for engine in engines}
    nccl = answers.pop(NCCL.name)
    for name, its in answers.items():
        same = sum(a == b for a, b in zip(nccl, its, strict=True))
        figures.add(f"tensor_parallel.{name}.same_tokens_as_nccl", same, "prompts", equals=SAME.requests)


def _answers(engine: Engine, vocabulary: int) -> list[Tokens]:
    """One prompt at a time: the products of a batch may round otherwise."""
    sampling = {"temperature": 0, "max_new_tokens": SAME.new_tokens, "ignore_eos": True}
    prompts = SAME.prompts(vocabulary)
    return [engine.generate(input_ids=[prompt], sampling_params=sampling)[0]["output_ids"] for prompt in prompts]


def _count(trace: Path, figures: Figures) -> None:
    """The collectives of the traced engine, those in graphs counted once for each graph."""
    served = elsewhere = 0
    for row in read_report([trace]).collectives:
        print(row, file=sys.stderr)
        served += row.calls if row.communicator == FLAGCX.name else 0
        elsewhere += row.calls if row.communicator != FLAGCX.name else 0
    figures.add("tensor_parallel.collectives.by_flagcx", served, "calls", at_least=1)
    figures.add("tensor_parallel.collectives.elsewhere", elsewhere, "calls", equals=0)


if __name__ == "__main__":
    main()
