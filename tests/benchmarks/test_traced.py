from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engines import ALONE, VENDOR, Variant
from benchmarks.figures import Figures
from benchmarks.loads import WORKS
from benchmarks.traced import compare_traces

CATEGORIES = {"copy": "gpu_memcpy", "clear": "gpu_memset"}


class TracedEngine:
    """An engine whose profiler writes what torch's does, of kernels and copies, names and microseconds, ``functions``,
    and a graph, of whose kernels there is where each begins and how long it takes."""

    def __init__(
        self,
        variant: Variant,
        *alone: tuple[str, float],
        functions: Sequence[str] = (),
        graph: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.variant, self._functions = variant, functions
        in_graph = [("in a graph", start, us, 1) for start, us in graph]
        self._ran = [*((name, 0.0, us, 2 + n) for n, (name, us) in enumerate(alone)), *in_graph]
        self._asked: dict[str, Any] = {}
        self.stacks = 0

    def timed(self, prompts: Any, new_tokens: int) -> float:
        return 1.0

    def call(self, method: str, **arguments: Any) -> None:
        if method == "start_profile":
            self._asked = arguments
            return
        assert method == "stop_profile"
        events: list[dict[str, Any]] = [{"cat": "cuda_runtime", "name": "cudaGraphLaunch", "dur": 90.0}, {"ph": "M"}]
        if self._asked["activities"] == ["GPU"]:
            events += [
                {"cat": CATEGORIES.get(name, "kernel"), "name": name, "ts": at, "dur": us, "args": {"correlation": its}}
                for name, at, us, its in self._ran
            ]
        elif self._asked["with_stack"]:
            self.stacks += 1
            events += [{"cat": "python_function", "name": name, "dur": 1.0} for name in self._functions]
        with gzip.open(Path(self._asked["output_dir"], "1-TP-0.trace.json.gz"), "wt") as file:
            json.dump({"traceEvents": events}, file)


def test_what_each_does_is_told_with_the_kernels_and_functions_that_differ_and_no_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = TracedEngine(
        ALONE, ("gemm", 6.0), ("norm", 1.0), ("norm", 1.0), functions=["step", "len of <list at 0x7a>"]
    )
    vendor = TracedEngine(
        VENDOR, ("gemm", 6.0), ("norm", 1.0), ("copy", 3.0), functions=["len of <list at 0x9b>", "step", "step"]
    )
    engines: list[Any] = [alone, vendor]
    compare_traces("run", engines, 1000, Figures())
    out, err = capsys.readouterr()
    found = {name: float(value) for name, value in re.findall(r"^figure run\.(\S+) (\S+)", out, re.MULTILINE)}
    for label in WORKS:
        assert (found[f"alone.{label}.device"], found[f"vendor.{label}.device"]) == (8.0, 10.0)
        assert found[f"vendor.{label}.device.kept"] == pytest.approx(0.8)
        assert (found[f"alone.{label}.python"], found[f"vendor.{label}.python"]) == (2, 3)
    assert err.splitlines() == [
        f"run.vendor.{label}: {line}"
        for label in WORKS
        for line in (
            "1 of copy, and SGLang alone 0",
            "1 of norm, and SGLang alone 2",
            "2 of step, and SGLang alone 1",
        )
    ]


def test_the_median_of_a_variants_engines_counts_and_what_the_slowest_keeps_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = [(ALONE, 4.0), (VENDOR, 10.0), (ALONE, 5.0), (VENDOR, 2.0), (ALONE, 4.5), (VENDOR, 2.25)]
    engines: list[Any] = [TracedEngine(variant, ("gemm", us), functions=["step"]) for variant, us in times]
    compare_traces("run", engines, 1000, Figures())
    out = capsys.readouterr().out
    found = {name: float(value) for name, value in re.findall(r"^figure run\.(\S+) (\S+)", out, re.MULTILINE)}
    for label in WORKS:
        assert found[f"vendor.{label}.device.kept"] == pytest.approx(2.0)
        assert found[f"alone.{label}.device.slowest"] == pytest.approx(0.8)
        assert found[f"vendor.{label}.device.slowest"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("engine", "missing"),
    [(TracedEngine(ALONE, functions=["step"]), "kernel"), (TracedEngine(ALONE, ("gemm", 1.0)), "python_function")],
)
def test_a_trace_without_what_was_asked_for_is_an_error(engine: TracedEngine, missing: str) -> None:
    engines: list[Any] = [engine]
    with pytest.raises(RuntimeError, match=f"saw no {missing}"):
        compare_traces("run", engines, 1000, Figures())


def test_functions_are_traced_for_the_first_engine_of_each_variant_alone() -> None:
    engines: list[Any] = [
        TracedEngine(variant, ("gemm", 1.0), functions=["step"]) for variant in (ALONE, VENDOR, ALONE, VENDOR)
    ]
    compare_traces("run", engines, 1000, Figures())
    assert [engine.stacks for engine in engines] == [len(WORKS), len(WORKS), 0, 0]


def test_a_graph_takes_from_its_first_kernel_s_beginning_to_its_last_one_s_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engines: list[Any] = [
        TracedEngine(ALONE, ("clear", 50.0), functions=["step"], graph=[(10.0, 1.0), (13.0, 2.0)]),
        TracedEngine(VENDOR, ("clear", 50.0), functions=["step"], graph=[(20.0, 2.0), (29.0, 1.0)]),
    ]
    compare_traces("run", engines, 1000, Figures())
    out = capsys.readouterr().out
    for label in WORKS:
        assert f"figure run.alone.{label}.graphs 5 us" in out
        assert f"figure run.vendor.{label}.graphs 10 us" in out
        assert f"figure run.vendor.{label}.graphs.kept 0.5 ratio" in out
        assert f"figure run.vendor.{label}.device.kept 1 ratio" in out


def test_where_there_are_no_graphs_none_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    engines: list[Any] = [TracedEngine(variant, ("gemm", 1.0), functions=["step"]) for variant in (ALONE, VENDOR)]
    compare_traces("run", engines, 1000, Figures())
    assert ".graphs" not in capsys.readouterr().out


def test_graphs_of_some_variants_alone_are_an_error_that_names_the_others() -> None:
    engines: list[Any] = [
        TracedEngine(ALONE, functions=["step"], graph=[(10.0, 1.0), (13.0, 2.0)]),
        TracedEngine(VENDOR, ("in a graph", 1.0), functions=["step"]),
    ]
    with pytest.raises(RuntimeError, match="no graphs ran in vendor,"):
        compare_traces("run", engines, 1000, Figures())
