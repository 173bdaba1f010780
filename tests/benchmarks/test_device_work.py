from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device_work import compare_device_work
from benchmarks.engines import ALONE, VENDOR, Variant
from benchmarks.figures import Figures
from benchmarks.loads import WORKS


class TracedEngine:
    """An engine whose profiler writes what torch's does, of ``kernels``: names and microseconds."""

    def __init__(self, variant: Variant, *kernels: tuple[str, float]) -> None:
        self.variant, self._kernels = variant, kernels
        self._folders: Iterator[Path] = iter(())

    def timed(self, prompts: Any, new_tokens: int) -> float:
        return 1.0

    def call(self, method: str, **arguments: Any) -> None:
        if method == "start_profile":
            self._folders = iter([Path(arguments["output_dir"])])
            return
        assert method == "stop_profile"
        folder = next(self._folders)
        events = [{"cat": "kernel", "name": name, "dur": us} for name, us in self._kernels]
        others = [{"cat": "cuda_runtime", "name": "cudaGraphLaunch", "dur": 90.0}, {"ph": "M"}]
        with gzip.open(folder / "1-TP-0.trace.json.gz", "wt") as file:
            json.dump({"traceEvents": [*events, *others]}, file)


def test_the_device_work_of_each_is_told_with_the_kernels_that_differ_and_no_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = TracedEngine(ALONE, ("gemm", 6.0), ("norm", 1.0), ("norm", 1.0))
    vendor = TracedEngine(VENDOR, ("gemm", 6.0), ("norm", 1.0), ("copy", 3.0))
    engines: list[Any] = [alone, vendor]
    compare_device_work("run", engines, 1000, Figures())
    out, err = capsys.readouterr()
    found = {name: float(value) for name, value in re.findall(r"^figure run\.(\S+) (\S+)", out, re.MULTILINE)}
    for label in WORKS:
        assert (found[f"alone.{label}.device"], found[f"vendor.{label}.device"]) == (8.0, 10.0)
        assert found[f"vendor.{label}.device.kept"] == pytest.approx(0.8)
    assert err.splitlines() == [
        f"run.vendor.{label}: {line}"
        for label in WORKS
        for line in ("1 of copy, and SGLang alone 0", "1 of norm, and SGLang alone 2")
    ]


def test_the_fastest_of_a_variants_engines_counts_and_what_the_slowest_keeps_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = [(ALONE, 4.0), (VENDOR, 10.0), (ALONE, 5.0), (VENDOR, 2.0)]
    engines: list[Any] = [TracedEngine(variant, ("gemm", us)) for variant, us in times]
    compare_device_work("run", engines, 1000, Figures())
    out = capsys.readouterr().out
    found = {name: float(value) for name, value in re.findall(r"^figure run\.(\S+) (\S+)", out, re.MULTILINE)}
    for label in WORKS:
        assert found[f"vendor.{label}.device.kept"] == pytest.approx(2.0)
        assert found[f"alone.{label}.device.slowest"] == pytest.approx(0.8)
        assert found[f"vendor.{label}.device.slowest"] == pytest.approx(0.2)


def test_a_trace_without_kernels_is_an_error() -> None:
    engines: list[Any] = [TracedEngine(ALONE)]
    with pytest.raises(RuntimeError, match="no kernel"):
        compare_device_work("run", engines, 1000, Figures())
