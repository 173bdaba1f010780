"""Who looks at the ops of PyTorch that are called, and so needs them to be called."""

from __future__ import annotations

from torch.autograd import _profiler_enabled
from torch.compiler import is_compiling


def ops_are_seen() -> bool:
    """By Dynamo, or by torch's profiler, now."""
    return bool(is_compiling() or _profiler_enabled())
