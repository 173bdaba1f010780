"""How long a function takes, with the device's part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

_REPEATS = 7
_SECONDS = 0.02
"""Each repeat calls a function for about as long."""


def seconds_per_call(device: torch.device, functions: Sequence[Callable[[], object]]) -> list[float]:
    """Of each function the best of several repeats, taken in turns: what disturbs one disturbs the others, too."""
    counts = [_count(device, function) for function in functions]
    taken = [
        [_once(device, function, count) for function, count in zip(functions, counts, strict=True)]
        for _ in range(_REPEATS)
    ]
    return [min(of_one) for of_one in zip(*taken, strict=True)]


def _count(device: torch.device, function: Callable[[], object]) -> int:
    for _ in range(3):  # what is compiled or tuned is, by then
        function()
    return max(1, int(_SECONDS / max(_once(device, function, 3), 1e-7)))


def _once(device: torch.device, function: Callable[[], object], count: int) -> float:
    module = torch.get_device_module(device)
    module.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        function()
    module.synchronize()
    return (time.perf_counter() - began) / count
