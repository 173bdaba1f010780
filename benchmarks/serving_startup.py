"""What each way to serve adds to an engine's start on a GPU: seconds, host memory and device memory.

The SmolLM2 shape with random weights and graphs. Each way is started twice, one engine at a time, and the second start
counts: the first one fills the caches of compiled kernels.

    python -m benchmarks.serving_startup [--logs DIR] [--json FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engines import ALONE, VARIANTS, Variant, start_all
from benchmarks.figures import Figures, parser
from benchmarks.serving import ARGUMENTS, WORKS, model

SHAPE = "smollm2"


class Start(NamedTuple):
    """One start: its seconds, and the MiB that the engine then holds."""

    s: float
    host_mib: float
    device_mib: float


def main() -> None:
    """Starts every variant."""
    options = parser(__doc__ or "")
    options.add_argument("--logs", type=Path, metavar="DIR", help="keep the engines' logs in DIR")
    args = options.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="sglang-fl-startup-") as scratch:
        arguments = {**ARGUMENTS, "model_path": str(model(SHAPE, Path(scratch, SHAPE)))}
        starts = {variant: _second(variant, arguments, args.logs or Path(scratch)) for variant in VARIANTS}
    alone = starts.pop(ALONE)
    for unit, value in alone._asdict().items():
        figures.add(f"startup.{SHAPE}.alone.{unit}", value, unit)
    for variant, start in starts.items():
        for unit, mine, own in zip(Start._fields, start, alone, strict=True):
            figures.add(f"startup.{SHAPE}.{variant.name}_adds.{unit}", mine - own, unit)
    figures.finish(args.json)


def _second(variant: Variant, arguments: Mapping[str, Any], logs: Path) -> Start:
    _started(variant, arguments, logs)
    return _started(variant, arguments, logs)


def _started(variant: Variant, arguments: Mapping[str, Any], logs: Path) -> Start:
    free, _ = torch.cuda.mem_get_info()
    with ExitStack() as stack:
        (engine,) = start_all(stack, [variant], arguments, logs)
        work = WORKS["decode1"]
        engine.timed(work.prompts(1000), 2)  # what is loaded at the first request is part of the start
        left, _ = torch.cuda.mem_get_info()
        return Start(engine.start_seconds, engine.host_memory() / 2**20, (free - left) / 2**20)


if __name__ == "__main__":
    main()
