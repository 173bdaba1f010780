"""What is done for an answer, as torch's profiler sees it: the GPU's kernels, and the Python functions of SGLang's
scheduler, which has the model. How fast the host is has no part in either."""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines import Engine, Tokens
from benchmarks.figures import Figures
from benchmarks.loads import WORKS, compare_times

Event = Mapping[str, Any]
"""One of torch's profiler."""


def compare_traces(name: str, engines: Sequence[Engine], vocabulary: int, figures: Figures) -> None:
    """Adds the GPU's time and the scheduler's calls for each work, and what each variant keeps of the first's speed on
    the GPU: SGLang's alone.

    The fastest of a variant's engines counts, as in :func:`benchmarks.loads.compare`; the calls are those of its first.
    Tells the kernels and functions that this one runs more or less often than the first of all. RuntimeError when the
    profiler saw none.
    """
    for label, work in WORKS.items():
        prompts = work.prompts(vocabulary)
        taken: dict[str, list[float]] = {}
        names: dict[str, Counter[str]] = {}
        for engine in engines:
            variant = engine.variant.name
            kernels = _kernels(engine, prompts, work.new_tokens)
            taken.setdefault(variant, []).append(sum(event["dur"] for event in kernels))
            if variant not in names:
                calls = _calls(engine, prompts, work.new_tokens)
                figures.add(f"{name}.{variant}.{label}.python", len(calls), "calls")
                names[variant] = _names([*kernels, *calls])
        for variant, mine in taken.items():
            figures.add(f"{name}.{variant}.{label}.device", min(mine), "us")
        compare_times(name, f"{label}.device", taken, figures, bounds={})
        alone = names[engines[0].variant.name]
        for variant, its in names.items():
            for line in _others(its, alone):
                print(f"{name}.{variant}.{label}: {line}", file=sys.stderr)


def _kernels(engine: Engine, prompts: list[Tokens], new_tokens: int) -> list[Event]:
    """What the GPU ran for an answer."""
    return _traced(engine, prompts, new_tokens, "kernel", activities=["GPU"], with_stack=False)


def _calls(engine: Engine, prompts: list[Tokens], new_tokens: int) -> list[Event]:
    """The functions of Python that the scheduler called for an answer."""
    return _traced(engine, prompts, new_tokens, "python_function", activities=["CPU"], with_stack=True)


def _traced(engine: Engine, prompts: list[Tokens], new_tokens: int, category: str, **profiler: Any) -> list[Event]:
    engine.timed(prompts, new_tokens)
    with tempfile.TemporaryDirectory(prefix="sglang-fl-trace-") as folder:
        engine.call("start_profile", output_dir=folder, record_shapes=False, **profiler)
        engine.timed(prompts, new_tokens)
        engine.call("stop_profile")
        (file,) = Path(folder).glob("*.trace.json.gz")
        with gzip.open(file) as trace:
            seen = [event for event in json.load(trace)["traceEvents"] if event.get("cat") == category]
    if not seen:
        msg = f"torch's profiler saw no {category}: is there CUPTI, and does SGLANG_PROFILE_WITH_STACK forbid stacks?"
        raise RuntimeError(msg)
    return seen


def _names(events: Sequence[Event]) -> Counter[str]:
    return Counter(re.sub(r" at 0x\w+", "", event["name"]) for event in events)


def _others(mine: Counter[str], alone: Counter[str]) -> list[str]:
    return [
        f"{mine[name]} of {name}, and SGLang alone {alone[name]}" for name in sorted((mine - alone) | (alone - mine))
    ]
