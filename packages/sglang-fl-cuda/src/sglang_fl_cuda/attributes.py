"""A layer's tensors, without the half microsecond that ``nn.Module`` takes to find each by its own ``__getattr__``."""

from __future__ import annotations

from typing import Any

import torch


def parameter(obj: Any, name: str) -> torch.Tensor:
    """``obj.name``, a parameter where ``obj`` is a module. Raises AttributeError when there is none."""
    try:
        found: torch.Tensor = obj._parameters[name]
    except (AttributeError, KeyError):
        found = getattr(obj, name)
    return found


def buffer(obj: Any, name: str) -> torch.Tensor:
    """``obj.name``, a buffer where ``obj`` is a module. Raises AttributeError when there is none."""
    try:
        found: torch.Tensor = obj._buffers[name]
    except (AttributeError, KeyError):
        found = getattr(obj, name)
    return found
