"""What is done for an answer, as torch's profiler sees it: by the GPU, and by the Python of SGLang's scheduler, which
has the model. How fast the host is has no part in it."""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engines import Engine, Tokens
from benchmarks.figures import Figures
from benchmarks.loads import WORKS, compare_times

Event = Mapping[str, Any]
"""One of torch's profiler."""

_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


def compare_traces(name: str, engines: Sequence[Engine], vocabulary: int, figures: Figures) -> None:
    """Adds the GPU's time and the scheduler's calls for each work, and what each variant keeps of the first's speed on
    the GPU: SGLang's alone.

    ``device`` is the time of all that the GPU runs, and ``graphs``, where there are any, that from a graph's beginning
    to its end, gaps included. The median of a variant's engines counts, as in :func:`benchmarks.loads.compare`; the
    calls are those of its first. Tells what this one runs more or less often than the first of all. RuntimeError when
    the profiler saw nothing, or graphs of some variants alone.
    """
    for label, work in WORKS.items():
        prompts = work.prompts(vocabulary)
        busy: dict[str, list[float]] = defaultdict(list)
        graphs: dict[str, list[float]] = defaultdict(list)
        names: dict[str, Counter[str]] = {}
        for engine in engines:
            variant = engine.variant.name
            ran = _traced(engine, prompts, work.new_tokens, _ON_GPU, activities=["GPU"], with_stack=False)
            busy[variant].append(sum(event["dur"] for event in ran))
            graphs[variant].append(_in_graphs(ran))
            if variant not in names:
                calls = _calls(engine, prompts, work.new_tokens)
                figures.add(f"{name}.{variant}.{label}.python", len(calls), "calls")
                names[variant] = _names([*ran, *calls])
        _compare(name, f"{label}.device", busy, figures)
        if _are_in_all(graphs):
            _compare(name, f"{label}.graphs", graphs, figures)
        alone = names[engines[0].variant.name]
        for variant, its in names.items():
            for line in _others(its, alone):
                print(f"{name}.{variant}.{label}: {line}", file=sys.stderr)


def _are_in_all(graphs: Mapping[str, Sequence[float]]) -> bool:
    """Are there any graphs? What has none beside others that have does not run as it should."""
    without = [variant for variant, mine in graphs.items() if not all(mine)]
    are_any = any(map(any, graphs.values()))
    if are_any and without:
        msg = f"no graphs ran in {', '.join(without)}, and in other engines some did"
        raise RuntimeError(msg)
    return are_any


def _compare(name: str, label: str, taken: Mapping[str, Sequence[float]], figures: Figures) -> None:
    for variant, mine in taken.items():
        figures.add(f"{name}.{variant}.{label}", median(mine), "us")
    compare_times(name, label, taken, figures, bounds={})


def _in_graphs(events: Sequence[Event]) -> float:
    """Microseconds from each graph's beginning to its end, summed up: what one launch runs has one correlation."""
    launches: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        launches[event["args"]["correlation"]].append(event)
    return sum(
        max(event["ts"] + event["dur"] for event in launch) - min(event["ts"] for event in launch)
        for launch in launches.values()
        if len(launch) > 1
    )


def _calls(engine: Engine, prompts: list[Tokens], new_tokens: int) -> list[Event]:
    """The functions of Python that the scheduler called for an answer."""
    return _traced(engine, prompts, new_tokens, ["python_function"], activities=["CPU"], with_stack=True)


def _traced(
    engine: Engine, prompts: list[Tokens], new_tokens: int, categories: Collection[str], **profiler: Any
) -> list[Event]:
    engine.timed(prompts, new_tokens)
    with tempfile.TemporaryDirectory(prefix="sglang-fl-trace-") as folder:
        engine.call("start_profile", output_dir=folder, record_shapes=False, **profiler)
        engine.timed(prompts, new_tokens)
        engine.call("stop_profile")
        (file,) = Path(folder).glob("*.trace.json.gz")
        with gzip.open(file) as trace:
            seen = [event for event in json.load(trace)["traceEvents"] if event.get("cat") in categories]
    if not seen:
        msg = (
            f"torch's profiler saw no {' or '.join(categories)}: is there CUPTI, and does SGLANG_PROFILE_WITH_STACK "
            "forbid stacks?"
        )
        raise RuntimeError(msg)
    return seen


def _names(events: Sequence[Event]) -> Counter[str]:
    return Counter(re.sub(r" at 0x\w+", "", event["name"]) for event in events)


def _others(mine: Counter[str], alone: Counter[str]) -> list[str]:
    return [
        f"{mine[name]} of {name}, and SGLang alone {alone[name]}" for name in sorted((mine - alone) | (alone - mine))
    ]
