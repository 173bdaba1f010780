"""Who looks at the ops of PyTorch that are called, and so needs them to be called."""

from __future__ import annotations

from torch._C import _is_torch_function_mode_enabled, _len_torch_dispatch_stack
from torch.autograd import _profiler_enabled
from torch.compiler import is_compiling


def ops_are_seen() -> bool:
    """By Dynamo, by torch's profiler, or by a mode, now: SGLang from 0.5.23 on asks for these, too."""
    return bool(
        is_compiling() or _profiler_enabled() or _len_torch_dispatch_stack() or _is_torch_function_mode_enabled()
    )
