"""SGLang alone beside SGLang with the plugin, on one GPU, in turns: what does each way to serve keep of the speed?

Two model shapes with random weights, eagerly and with graphs; prefill, decoding 32 requests at once, and one alone. The
engines of a group live side by side and answer in turns, round after round; of each the best answer counts. With
``--engines 4`` there are four of each, whose median counts, and what the slowest keeps of the fastest is told.
With ``--starts`` they are started one at a time, and what each start adds to that of SGLang alone is told, in seconds,
host memory and device memory: have the kernels compiled by an earlier run. With ``--traces`` some answers of each are
traced as well: which kernels the GPU ran, for how long, and which functions the host, in which its noise has no part.

    python -m benchmarks.serving [--shapes S,...] [--modes M,...] [--variants V,...] [--engines N | --starts]
                                 [--seconds S] [--traces] [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engines import ALONE, ATEN, ATEN_BUT_MM, FLAGOS, VENDOR, Engine, EngineError, Variant, start_all
from benchmarks.figures import Figures, parser, seconds, some_of
from benchmarks.loads import ARGUMENTS, SECONDS, SHAPES, WORKS, compare, model
from benchmarks.traced import compare_traces

MODES: Mapping[str, Mapping[str, Any]] = {"graphs": {}, "eager": {"disable_cuda_graph": True}}

BOUNDS = {
    ("graphs", "vendor"): 0.99,
    ("eager", "vendor"): 0.99,
    ("graphs", "flagos"): 0.97,
}

ORDERS, LAYERS = [VENDOR, FLAGOS], [ATEN, ATEN_BUT_MM]
LAYERS_SECONDS = 4.0
VARIANTS = [variant.name for variant in (*ORDERS, *LAYERS)]
"""What is measured beside SGLang alone."""


def main() -> None:
    """Measures every shape and mode asked for, and exits 1 when a bound was missed."""
    options = parser(__doc__ or "")
    options.add_argument("--shapes", type=some_of(*SHAPES), default=list(SHAPES), metavar="S,...", help="only these")
    options.add_argument("--modes", type=some_of(*MODES), default=list(MODES), metavar="M,...", help="only these")
    options.add_argument("--variants", type=some_of(*VARIANTS), default=VARIANTS, metavar="V,...", help="only these")
    ways = options.add_mutually_exclusive_group()
    ways.add_argument("--engines", type=int, choices=range(1, 9), default=1, metavar="N", help="so many of each")
    ways.add_argument("--starts", action="store_true", help="start one at a time, and tell what each start takes")
    how_long = f"each works so long at each work; beside an ATen layer {LAYERS_SECONDS} at most"
    options.add_argument("--seconds", type=seconds, default=SECONDS, metavar="S", help=how_long)
    options.add_argument("--traces", action="store_true", help="tell what GPU and host do for an answer, too")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    if args.traces and not any(variant.name in args.variants for variant in ORDERS):
        options.error(f"--traces: these are traced alone: {', '.join(variant.name for variant in ORDERS)}")
    figures = Figures(args.json)
    with tempfile.TemporaryDirectory(prefix="sglang-fl-serving-") as scratch:
        for shape in args.shapes:
            folder = model(shape, Path(scratch, shape))
            for mode in args.modes:
                logs = (args.logs or Path(scratch, "logs")) / f"{shape}-{mode}"
                starts = Starts(figures) if args.starts else None
                group = Group(shape, mode, folder, logs, args.engines, args.seconds, starts)
                _measure(group, args.variants, figures, traces=args.traces)
    figures.finish()


class Start(NamedTuple):
    """One start: its time, with that of the first request, and what the engine then holds of the host's memory and of
    the GPU's."""

    time: float
    host_memory: float
    device_memory: float


_UNITS = {"time": "s", "host_memory": "MiB", "device_memory": "MiB"}


class Starts:
    """Starts a group's engines one at a time, SGLang alone first, and adds to ``figures`` what each start takes."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._alone: Start | None = None

    def timed(self, name: str, stack: ExitStack, variant: Variant, arguments: Mapping[str, Any], logs: Path) -> Engine:
        """Starts one engine. ``name`` is the group's, for the figures."""
        free, _ = torch.cuda.mem_get_info()
        (engine,) = start_all(stack, [variant], arguments, logs)
        first = engine.timed(WORKS["decode1"].prompts(1000), 2)  # what it loads is part of the start
        left, _ = torch.cuda.mem_get_info()
        self._tell(
            f"{name}.{variant.name}",
            Start(engine.start_seconds + first, engine.host_memory() / 2**20, (free - left) / 2**20),
        )
        return engine

    def _tell(self, name: str, took: Start) -> None:
        if self._alone is None:
            self._alone = took
            for what, value in took._asdict().items():
                self._figures.add(f"{name}.start.{what}", value, _UNITS[what])
        else:
            for what, mine, own in zip(Start._fields, took, self._alone, strict=True):
                self._figures.add(f"{name}.start_adds.{what}", mine - own, _UNITS[what])


class Group(NamedTuple):
    """Engines that are measured in turns: of one shape, in one mode."""

    shape: str
    mode: str
    model: Path
    logs: Path
    engines: int
    seconds: float
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
        """Starts engines of the group, as many of each, which live as long as ``stack``."""
        _tell(f"{self.shape}, {self.mode}: starting {', '.join(variant.name for variant in variants)}")
        arguments = {**ARGUMENTS, **MODES[self.mode], "model_path": str(self.model)}
        if self.starts is None:
            return start_all(stack, variants * self.engines, arguments, self.logs)
        return [self.starts.timed(self.name, stack, variant, arguments, self.logs) for variant in variants]


def _measure(group: Group, variants: list[str], figures: Figures, *, traces: bool) -> None:
    """SGLang alone beside the two orders of ops, and then beside each ATen layer: they do not all fit on the GPU."""
    orders, layers = ([variant for variant in some if variant.name in variants] for some in (ORDERS, LAYERS))
    with ExitStack() as stack:
        engines = group.start(stack, [ALONE, *orders])
        alone = [engine for engine in engines if engine.variant is ALONE]
        if orders:
            bounds = {variant: bound for (mode, variant), bound in BOUNDS.items() if mode == group.mode}
            compare(group.name, engines, group.vocabulary, bounds, figures, group.seconds)
        if orders and traces:
            compare_traces(group.name, engines, group.vocabulary, figures)
        for engine in engines:
            if engine.variant is not ALONE:
                engine.stop()
        for layer in layers:
            _measure_layer(group, alone, layer, figures)


def _measure_layer(group: Group, alone: list[Engine], layer: Variant, figures: Figures) -> None:
    """What an ATen layer costs is told, not bounded; and so is that it does not serve."""
    with ExitStack() as stack:
        try:
            engines = [*alone, *group.start(stack, [layer])]
            name, how_long = f"{group.name}.beside_{layer.name}", min(group.seconds, LAYERS_SECONDS)
            compare(name, engines, group.vocabulary, {}, figures, how_long)
        except EngineError as error:
            if error.engine in alone:
                raise
            _tell(str(error))
            figures.add(f"{group.name}.{layer.name}.served", 0, "engines")


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
