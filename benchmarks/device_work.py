"""What a GPU does for some requests, kernel by kernel: the speed of the host, and its noise, have no part in it."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engines import Engine, Tokens
from benchmarks.figures import Figures
from benchmarks.loads import WORKS, compare_times

ACTIVITIES = ["GPU"]
"""What SGLang's profiler is asked to record."""


class DeviceWork(NamedTuple):
    """What was done: in how many microseconds, those of all kernels added, and which kernels how often."""

    us: float
    kernels: Counter[str]


def compare_device_work(name: str, engines: Sequence[Engine], vocabulary: int, figures: Figures) -> None:
    """Adds what each variant has the GPU do for each work, and what it keeps of the first's speed: SGLang's alone.

    The fastest of a variant's engines counts, as in :func:`benchmarks.loads.compare`. Tells the kernels that a variant
    runs more or less often than the first. RuntimeError when no kernel was seen.
    """
    for label, work in WORKS.items():
        done: dict[str, list[DeviceWork]] = {}
        for engine in engines:
            traced = _traced(engine, work.prompts(vocabulary), work.new_tokens)
            done.setdefault(engine.variant.name, []).append(traced)
        taken = {variant: [one.us for one in mine] for variant, mine in done.items()}
        for variant, mine in taken.items():
            figures.add(f"{name}.{variant}.{label}.device", min(mine), "us")
        compare_times(name, f"{label}.device", taken, figures, bounds={})
        alone, *others = done
        for variant in others:
            for line in _others(done[variant][0].kernels, done[alone][0].kernels):
                print(f"{name}.{variant}.{label}: {line}", file=sys.stderr)


def _traced(engine: Engine, prompts: list[Tokens], new_tokens: int) -> DeviceWork:
    engine.timed(prompts, new_tokens)
    with tempfile.TemporaryDirectory(prefix="sglang-fl-trace-") as folder:
        engine.call("start_profile", output_dir=folder, activities=ACTIVITIES, with_stack=False, record_shapes=False)
        engine.timed(prompts, new_tokens)
        engine.call("stop_profile")
        (file,) = Path(folder).glob("*.trace.json.gz")
        with gzip.open(file) as trace:
            return _read(json.load(trace))


def _read(trace: Mapping[str, Any]) -> DeviceWork:
    kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
    if not kernels:
        msg = "torch's profiler saw no kernel on the device: can it use CUPTI here?"
        raise RuntimeError(msg)
    return DeviceWork(sum(event["dur"] for event in kernels), Counter(event["name"] for event in kernels))


def _others(mine: Counter[str], alone: Counter[str]) -> list[str]:
    return [
        f"{mine[kernel]} of {kernel}, and SGLang alone {alone[kernel]}"
        for kernel in sorted(mine | alone)
        if mine[kernel] != alone[kernel]
    ]
