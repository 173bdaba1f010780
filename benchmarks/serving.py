"""SGLang alone beside SGLang with the plugin, on one GPU, in turns: what does each way to serve keep of the speed?

Two model shapes with random weights, eagerly and with graphs; prefill, decoding 32 requests at once, and one alone. The
engines of a group live side by side and answer one after the other, round after round; a figure is the median of the
rounds' ratios, SGLang alone being 1. With ``--starts`` they are started one at a time, and what each start adds to that
of SGLang alone is told, in seconds, host memory and device memory: have the kernels compiled by an earlier run.

    python -m benchmarks.serving [--shapes S,...] [--modes M,...] [--no-aten] [--starts] [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engines import ALONE, ATEN, FLAGOS, VENDOR, Engine, Tokens, Variant, start_all
from benchmarks.figures import Figures, parser

ROUND_SECONDS = 0.6
"""A work is repeated until SGLang alone takes about that long: shorter ones differ by more than what is measured."""

_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16"}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "smollm2": {
        **_LLAMA,
        **{"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152},
        **{"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192},
        **{"rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True},
    },
    "llama8b": {
        **_LLAMA,
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192},
        **{"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False},
    },
}
MODES: Mapping[str, Mapping[str, Any]] = {"graphs": {}, "eager": {"disable_cuda_graph": True}}

ARGUMENTS = {
    **{"load_format": "dummy", "skip_tokenizer_init": True, "disable_radix_cache": True, "log_level": "info"},
    **{"attention_backend": "triton", "sampling_backend": "pytorch", "grammar_backend": "none"},
    # Several engines share the GPU: each takes the cache that the work needs, and no share of what is left.
    **{"max_total_tokens": 16384, "max_running_requests": 32, "mem_fraction_static": 0.98, "sleep_on_idle": True},
}

BOUNDS = {
    ("graphs", "vendor"): 0.99,
    ("eager", "vendor"): 0.99,
    ("graphs", "flagos"): 0.97,
}


class Work(NamedTuple):
    """Requests of one size: how many, how long, and how many tokens each gets."""

    requests: int
    prompt_tokens: int
    new_tokens: int

    @property
    def tokens(self) -> int:
        """What the work is counted in: the tokens of the prompts when one is asked for, those made otherwise."""
        return self.requests * (self.prompt_tokens if self.new_tokens == 1 else self.new_tokens)

    def prompts(self, vocabulary: int) -> list[Tokens]:
        """The same in every engine."""
        rng = random.Random(0)
        return [[rng.randrange(vocabulary) for _ in range(self.prompt_tokens)] for _ in range(self.requests)]


WORKS = {
    "prefill": Work(requests=8, prompt_tokens=1024, new_tokens=1),
    "decode32": Work(requests=32, prompt_tokens=32, new_tokens=64),
    "decode1": Work(requests=1, prompt_tokens=32, new_tokens=64),
}


ORDERS, ORDERS_ROUNDS = [VENDOR, FLAGOS], 4
ATEN_ROUNDS = 1


def main() -> None:
    """Measures every shape and mode asked for, and exits 1 when a bound was missed."""
    options = parser(__doc__ or "")
    options.add_argument("--shapes", default=",".join(SHAPES), metavar="S,...", help="only these shapes")
    options.add_argument("--modes", default=",".join(MODES), metavar="M,...", help="only these modes")
    options.add_argument("--no-aten", action="store_true", help="leave FlagGems' ATen layer out")
    options.add_argument("--starts", action="store_true", help="start one at a time, and tell what each start takes")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="sglang-fl-serving-") as scratch:
        for shape in args.shapes.split(","):
            folder = model(shape, Path(scratch, shape))
            for mode in args.modes.split(","):
                logs = (args.logs or Path(scratch, "logs")) / f"{shape}-{mode}"
                group = Group(shape, mode, folder, logs, Starts() if args.starts else None)
                _measure(group, figures, with_aten=not args.no_aten)
    figures.finish(args.json)


class Start(NamedTuple):
    """One start: its seconds, and the MiB that the engine then holds of the host's memory and of the GPU's."""

    s: float
    host_mib: float
    device_mib: float


class Starts:
    """What the starts of a group's engines took, by variant, when they were started one at a time."""

    def __init__(self) -> None:
        self._took: dict[str, Start] = {}

    def timed(self, stack: ExitStack, variant: Variant, arguments: Mapping[str, Any], logs: Path) -> Engine:
        """Starts one engine."""
        free, _ = torch.cuda.mem_get_info()
        (engine,) = start_all(stack, [variant], arguments, logs)
        engine.timed(WORKS["decode1"].prompts(1000), 2)  # what the first request loads is part of the start
        left, _ = torch.cuda.mem_get_info()
        self._took[variant.name] = Start(engine.start_seconds, engine.host_memory() / 2**20, (free - left) / 2**20)
        return engine

    def report(self, name: str, figures: Figures) -> None:
        """Adds what SGLang alone takes, and what each other variant adds to it."""
        alone = self._took.pop(ALONE.name)
        for unit, value in alone._asdict().items():
            figures.add(f"{name}.alone.start.{unit}", value, unit)
        for variant, took in self._took.items():
            for unit, mine, own in zip(Start._fields, took, alone, strict=True):
                figures.add(f"{name}.{variant}.start_adds.{unit}", mine - own, unit)


class Group(NamedTuple):
    """Engines that are measured in turns: of one shape, in one mode."""

    shape: str
    mode: str
    model: Path
    logs: Path
    starts: Starts | None

    @property
    def name(self) -> str:
        """What its figures' names begin with."""
        return f"serving.{self.shape}.{self.mode}"

    def start(self, stack: ExitStack, variants: list[Variant]) -> list[Engine]:
        """Starts engines of the group, which live as long as ``stack``."""
        _tell(f"{self.shape}, {self.mode}: starting {', '.join(variant.name for variant in variants)}")
        arguments = {**ARGUMENTS, **MODES[self.mode], "model_path": str(self.model)}
        if self.starts is None:
            return start_all(stack, variants, arguments, self.logs)
        return [self.starts.timed(stack, variant, arguments, self.logs) for variant in variants]


def model(shape: str, folder: Path) -> Path:
    """Makes ``folder`` a model of that shape: a configuration alone, whose weights are random."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[shape]))
    return folder


def _measure(group: Group, figures: Figures, *, with_aten: bool) -> None:
    """SGLang alone beside the two orders of ops, and then beside the ATen layer: they do not all fit on the GPU."""
    with ExitStack() as stack:
        (alone,) = group.start(stack, [ALONE])
        with ExitStack() as others:
            engines = [alone, *group.start(others, ORDERS)]
            _compare(group, engines, ORDERS_ROUNDS, figures)
        if with_aten:
            _measure_aten(group, alone, figures)
    if group.starts is not None:
        group.starts.report(group.name, figures)


def _measure_aten(group: Group, alone: Engine, figures: Figures) -> None:
    """What the ATen layer costs is told, not bounded; and so is that it does not start."""
    with ExitStack() as stack:
        try:
            engines = [alone, *group.start(stack, [ATEN])]
        except RuntimeError as error:
            _tell(str(error))
            figures.add(f"{group.name}.aten.started", 0, "engines")
        else:
            _compare(group, engines, ATEN_ROUNDS, figures)


def _compare(group: Group, engines: Sequence[Engine], rounds: int, figures: Figures) -> None:
    for name, work in WORKS.items():
        seconds = _in_turns(engines, work.prompts(SHAPES[group.shape]["vocab_size"]), work.new_tokens, rounds)
        alone = seconds.pop(ALONE.name)
        for variant, mine in seconds.items():
            for who, theirs in ((ALONE.name, alone), (variant, mine)):
                speed = work.tokens / statistics.median(theirs)
                figures.add(f"{group.name}.{variant}.{name}.{who}", speed, "tokens/s")
            kept = statistics.median(a / b for a, b in zip(alone, mine, strict=True))
            bound = BOUNDS.get((group.mode, variant))
            figures.add(f"{group.name}.{variant}.{name}.kept", kept, "ratio", at_least=bound)


def _in_turns(engines: Sequence[Engine], prompts: list[Tokens], new_tokens: int, rounds: int) -> dict[str, list[float]]:
    """Each variant's seconds for the work, round by round; who begins changes from round to round."""
    warm = [engine.timed(prompts, new_tokens) for engine in engines for _ in range(2)]
    repeats = max(1, round(ROUND_SECONDS / warm[1]))  # the first engine is SGLang alone
    seconds: dict[str, list[float]] = {engine.variant.name: [] for engine in engines}
    for number in range(rounds):
        for engine in engines if number % 2 else reversed(engines):
            took = sum(engine.timed(prompts, new_tokens) for _ in range(repeats))
            seconds[engine.variant.name].append(took / repeats)
    return seconds


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
