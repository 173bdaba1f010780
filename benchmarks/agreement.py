"""Does the plugin change what a real model answers on a GPU? SmolLM2 through SGLang alone and through the plugin.

16 prompts of 64 greedy tokens each. With the vendor's kernels the tokens must be SGLang's own. With ``prefer: flagos``
the arithmetic rounds otherwise: given SGLang's own answers, the logits must be near its own, and where the tokens part,
SGLang's own choice must have led by no more than such logits may differ.

In float16: in bfloat16, whose steps are eight times as wide, any two ways to round lie further apart than asked here.

    python -m benchmarks.agreement [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.engines import ALONE, FLAGOS, VENDOR, Engine, Tokens, add_served, start_all
from benchmarks.figures import Figures, parser, worst
from benchmarks.prompts import PROMPTS
from examples.smollm2 import model_path

NEW_TOKENS = 64
NEAR = 2e-2

ARGUMENTS: Mapping[str, Any] = {
    **{"skip_tokenizer_init": True, "disable_radix_cache": True, "enable_return_hidden_states": True},
    **{"attention_backend": "triton", "sampling_backend": "pytorch", "grammar_backend": "none"},
    **{
        "dtype": "float16",
        "max_total_tokens": 8192,
        "max_running_requests": 16,
        "mem_fraction_static": 0.9,
        "sleep_on_idle": True,
    },
}
GREEDY = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
ONE_TOKEN = {"temperature": 0, "max_new_tokens": 1}


def main() -> None:
    """Generates in the three ways, and exits 1 when one of them disagrees."""
    options = parser(__doc__ or "")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    model, figures = model_path(_tell), Figures(args.json)
    prompts = _tokens(model)
    with tempfile.TemporaryDirectory(prefix="sglang-fl-agreement-") as scratch, ExitStack() as stack:
        arguments = {**ARGUMENTS, "model_path": str(model)}
        engines = start_all(stack, [ALONE, VENDOR, FLAGOS], arguments, args.logs or Path(scratch))
        add_served("agreement", engines, figures)
        answers = [_answers(engine, prompts) for engine in engines]
        texts = [prompt + answer for prompt, answer in zip(prompts, answers[0], strict=True)]
        logits = [_logits(engine, texts, _head(model)) for engine in engines]
    same = sum(a == b for a, b in zip(answers[0], answers[1], strict=True))
    figures.add("agreement.vendor.same_tokens", same, "prompts", equals=len(prompts))
    figures.add("agreement.vendor.logits", _distance(logits[0], logits[1]), "relative", at_most=NEAR)
    _compare_near(answers[0], answers[2], logits[0], logits[2], figures)
    figures.finish()


def _tokens(model: Path) -> list[Tokens]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, which the command's help need not wait

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [tokenizer(prompt).input_ids for prompt in PROMPTS]


def _answers(engine: Engine, prompts: list[Tokens]) -> list[Tokens]:
    """One prompt at a time: the products of a batch may round otherwise."""
    _tell(f"generating: {engine.variant.name}")
    return [engine.generate(input_ids=[prompt], sampling_params=GREEDY)[0]["output_ids"] for prompt in prompts]


def _logits(engine: Engine, texts: list[Tokens], head: torch.Tensor) -> list[torch.Tensor]:
    """For each text, the float64 logits ``[NEW_TOKENS, vocabulary]`` that its last tokens were chosen by."""
    _tell(f"reading texts: {engine.variant.name}")
    logits = []
    for text in texts:
        (answer,) = engine.generate(input_ids=[text], sampling_params=ONE_TOKEN, return_hidden_states=True)
        states = torch.tensor(answer["meta_info"]["hidden_states"][0], dtype=torch.float64)
        logits.append(states[-NEW_TOKENS - 1 : -1] @ head.T)
    return logits


def _head(model: Path) -> torch.Tensor:
    """SmolLM2's output layer, which is its embedding."""
    (file,) = model.glob("*.safetensors")
    return load_file(file)["model.embed_tokens.weight"].double()


def _distance(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest distance of two logit vectors for one token, relative to the length of the first."""
    return worst(((a - b).norm(dim=-1) / a.norm(dim=-1)).max().item() for a, b in zip(ones, others, strict=True))


def _compare_near(
    own: list[Tokens], theirs: list[Tokens], logits: list[torch.Tensor], other: list[torch.Tensor], figures: Figures
) -> None:
    figures.add("agreement.flagos.logits", _distance(logits, other), "relative", at_most=NEAR)
    figures.add("agreement.flagos.same_tokens", sum(a == b for a, b in zip(own, theirs, strict=True)), "prompts")
    unexplained = 0
    for index, (mine, its) in enumerate(zip(own, theirs, strict=True)):
        for position in islice((i for i, (a, b) in enumerate(zip(mine, its, strict=True)) if a != b), 1):
            at = logits[index][position]
            lead, near = (at[mine[position]] - at[its[position]]).item(), NEAR * at.abs().max().item()
            unexplained += not lead <= near  # not a number explains nothing
            _tell(f"prompt {index} parts at token {position}: a lead of {lead:.3g} logits, near is {near:.3g}")
    figures.add("agreement.flagos.unexplained", unexplained, "prompts", equals=0)


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
