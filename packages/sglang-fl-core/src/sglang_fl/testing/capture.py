"""Device graphs, on whatever device torch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_WARM_UPS = 3
"""Calls before a capture: what compiles or tunes a kernel cannot be captured."""


def graph_class(device: torch.device) -> type | None:
    """The class of graphs of ``device``, e.g. ``torch.cuda.CUDAGraph``; None where torch has none."""
    names = vars(torch.get_device_module(device))
    return next((value for value in names.values() if isinstance(value, type) and hasattr(value, "replay")), None)


def captured(device: torch.device, action: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """``action`` as a graph: what replays it and waits for its end, and what ``action`` answered.

    Replaying reads what the tensors of ``action`` hold by then, and writes into what it answered.
    """
    module, graphs = torch.get_device_module(device), graph_class(device)
    assert graphs is not None, device
    for _ in range(_WARM_UPS):
        action()
    module.synchronize()
    graph = graphs()
    with module.graph(graph):
        answer = action()

    def replay() -> None:
        graph.replay()
        module.synchronize()

    return replay, answer
