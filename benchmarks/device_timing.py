"""How long a call takes on a GPU: launched one by one, and replayed from a graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.cores import in_turn, on

Call = Callable[[], Any]

ROUNDS = 5
EAGER_ROUNDS = 12
"""More than those of graphs: cores differ, and the GPU is one."""

ROUND_SECONDS = 2e-3
MOST_CALLS = 50


def eager_us(call: Call) -> float:
    """Microseconds per call of a loop that launches it over and over: the host's time, or the GPU's if longer.

    The least of the rounds, each on another core: a shared host only ever adds to what a call takes.
    """
    calls = _calls_in(call, ROUND_SECONDS)
    rounds = []
    for core in in_turn(EAGER_ROUNDS):
        with on({core}):
            call()
            rounds.append(_round_us(call, calls))
    return min(rounds)


def _round_us(call: Call, calls: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls * 1e6


def graph_us(calls: Mapping[str, Call]) -> dict[str, float]:
    """Microseconds per call in a graph of many, for each by name, timed in turns: drift falls on all alike."""
    graphs = {name: _Graph(call) for name, call in calls.items()}
    rounds = [{name: graph.microseconds() for name, graph in graphs.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(each[name] for each in rounds) for name in graphs}


class _Graph:
    """Many calls captured in one graph. The call has been made before: nothing compiles or tunes in a capture."""

    def __init__(self, call: Call) -> None:
        self._calls = _calls_in(call, ROUND_SECONDS)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for _ in range(self._calls):
                call()
        self._graph.replay()

    def microseconds(self) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._graph.replay()  # the GPU is busy with it while the host asks for the next, and does not wait for that
        began.record()
        self._graph.replay()
        ended.record()
        torch.cuda.synchronize()
        return float(began.elapsed_time(ended)) / self._calls * 1e3


def _calls_in(call: Call, seconds: float) -> int:
    """How many calls take about that long."""
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return max(3, min(MOST_CALLS, int(seconds / (time.perf_counter() - began))))
