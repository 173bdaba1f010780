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
from typing import Any, NamedTuple

from benchmarks.engines import Engine, Tokens
from benchmarks.figures import Figures
from benchmarks.loads import WORKS, compare_times


class Done(NamedTuple):
    """What was done for an answer.

    Attributes:
        us: microseconds of the GPU, those of all kernels added.
        kernels: which, and how often.
        functions: of Python, those called by the scheduler, and how often.
    """

    us: float
    kernels: Counter[str]
    functions: Counter[str]


def compare_traces(name: str, engines: Sequence[Engine], vocabulary: int, figures: Figures) -> None:
    """Adds the GPU's time and the scheduler's calls for each work, and what each variant keeps of the first's speed on
    the GPU: SGLang's alone.

    The fastest of a variant's engines counts, as in :func:`benchmarks.loads.compare`. Tells the kernels and functions
    that a variant's first engine runs more or less often than the first of all. RuntimeError when no kernel was seen.
    """
    for label, work in WORKS.items():
        done: dict[str, list[Done]] = {}
        for engine in engines:
            done.setdefault(engine.variant.name, []).append(_done(engine, work.prompts(vocabulary), work.new_tokens))
        taken = {variant: [one.us for one in mine] for variant, mine in done.items()}
        for variant, mine in done.items():
            figures.add(f"{name}.{variant}.{label}.device", min(taken[variant]), "us")
            figures.add(f"{name}.{variant}.{label}.python", mine[0].functions.total(), "calls")
        compare_times(name, f"{label}.device", taken, figures, bounds={})
        (alone, *_), *others = done.values()
        for variant, (first, *_) in zip([*done][1:], others, strict=True):
            for line in [*_others(first.kernels, alone.kernels), *_others(first.functions, alone.functions)]:
                print(f"{name}.{variant}.{label}: {line}", file=sys.stderr)


def _done(engine: Engine, prompts: list[Tokens], new_tokens: int) -> Done:
    engine.timed(prompts, new_tokens)
    kernels = _traced(engine, prompts, new_tokens, "kernel", activities=["GPU"], with_stack=False)
    functions = _traced(engine, prompts, new_tokens, "python_function", activities=["CPU"], with_stack=True)
    if not kernels:
        msg = "torch's profiler saw no kernel on the device: can it use CUPTI here?"
        raise RuntimeError(msg)
    return Done(sum(event["dur"] for event in kernels), _names(kernels), _names(functions))


def _traced(
    engine: Engine, prompts: list[Tokens], new_tokens: int, category: str, **profiler: Any
) -> list[Mapping[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="sglang-fl-trace-") as folder:
        engine.call("start_profile", output_dir=folder, record_shapes=False, **profiler)
        engine.timed(prompts, new_tokens)
        engine.call("stop_profile")
        (file,) = Path(folder).glob("*.trace.json.gz")
        with gzip.open(file) as trace:
            return [event for event in json.load(trace)["traceEvents"] if event.get("cat") == category]


def _names(events: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(re.sub(r" at 0x\w+", "", event["name"]) for event in events)


def _others(mine: Counter[str], alone: Counter[str]) -> list[str]:
    return [
        f"{mine[name]} of {name}, and SGLang alone {alone[name]}" for name in sorted((mine - alone) | (alone - mine))
    ]
