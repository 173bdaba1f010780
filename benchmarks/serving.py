"""SGLang alone beside SGLang with the plugin, on one GPU, in turns: what does each way to serve keep of the speed?

Two model shapes with random weights, eagerly and with graphs; prefill, decoding 32 requests at once, and one alone. The
engines of a group live side by side and answer one after the other, round after round; the best round counts. With
``--starts`` they are started one at a time, and what each start adds to that of SGLang alone is told, in seconds, host
memory and device memory: have the kernels compiled by an earlier run.

    python -m benchmarks.serving [--shapes S,...] [--modes M,...] [--no-aten] [--starts] [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engines import ALONE, ATEN, FLAGOS, VENDOR, Engine, Variant, start_all
from benchmarks.figures import Figures, parser, some_of
from benchmarks.loads import ARGUMENTS, SHAPES, WORKS, compare, model

MODES: Mapping[str, Mapping[str, Any]] = {"graphs": {}, "eager": {"disable_cuda_graph": True}}

BOUNDS = {
    ("graphs", "vendor"): 0.99,
    ("eager", "vendor"): 0.99,
    ("graphs", "flagos"): 0.97,
}


ORDERS, ORDERS_ROUNDS = [VENDOR, FLAGOS], 10
ATEN_ROUNDS = 3


def main() -> None:
    """Measures every shape and mode asked for, and exits 1 when a bound was missed."""
    options = parser(__doc__ or "")
    options.add_argument("--shapes", type=some_of(*SHAPES), default=list(SHAPES), metavar="S,...", help="only these")
    options.add_argument("--modes", type=some_of(*MODES), default=list(MODES), metavar="M,...", help="only these")
    options.add_argument("--no-aten", action="store_true", help="leave FlagGems' ATen layer out")
    options.add_argument("--starts", action="store_true", help="start one at a time, and tell what each start takes")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="sglang-fl-serving-") as scratch:
        for shape in args.shapes:
            folder = model(shape, Path(scratch, shape))
            for mode in args.modes:
                logs = (args.logs or Path(scratch, "logs")) / f"{shape}-{mode}"
                group = Group(shape, mode, folder, logs, Starts() if args.starts else None)
                _measure(group, figures, with_aten=not args.no_aten)
    figures.finish(args.json)


class Start(NamedTuple):
    """One start: its time, and what the engine then holds of the host's memory and of the GPU's."""

    time: float
    host_memory: float
    device_memory: float


_UNITS = {"time": "s", "host_memory": "MiB", "device_memory": "MiB"}


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
        for what, value in alone._asdict().items():
            figures.add(f"{name}.alone.start.{what}", value, _UNITS[what])
        for variant, took in self._took.items():
            for what, mine, own in zip(Start._fields, took, alone, strict=True):
                figures.add(f"{name}.{variant}.start_adds.{what}", mine - own, _UNITS[what])


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

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(SHAPES[self.shape]["vocab_size"])

    def start(self, stack: ExitStack, variants: list[Variant]) -> list[Engine]:
        """Starts engines of the group, which live as long as ``stack``."""
        _tell(f"{self.shape}, {self.mode}: starting {', '.join(variant.name for variant in variants)}")
        arguments = {**ARGUMENTS, **MODES[self.mode], "model_path": str(self.model)}
        if self.starts is None:
            return start_all(stack, variants, arguments, self.logs)
        return [self.starts.timed(stack, variant, arguments, self.logs) for variant in variants]


def _measure(group: Group, figures: Figures, *, with_aten: bool) -> None:
    """SGLang alone beside the two orders of ops, and then beside the ATen layer: they do not all fit on the GPU."""
    with ExitStack() as stack:
        alone, *others = group.start(stack, [ALONE, *ORDERS])
        bounds = {variant: bound for (mode, variant), bound in BOUNDS.items() if mode == group.mode}
        compare(group.name, [alone, *others], group.vocabulary, ORDERS_ROUNDS, bounds, figures)
        if with_aten:
            for engine in others:
                engine.stop()
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
            compare(f"{group.name}.beside_aten", engines, group.vocabulary, ATEN_ROUNDS, {}, figures)


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
