"""The gated activations: x ``[..., 2d]`` in half precision or float32, of any strides, -> ``[..., d]``, contiguous."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_compiling

from sglang_fl.ops import ActAndMul
from sglang_fl.records import Answer
from sglang_fl_cuda.kernels import Kernel, activations
from sglang_fl_cuda.observers import ops_are_seen

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_MISALIGNED = 31  # the bits of an address that the widest vectors, of 32 bytes, leave at zero


def accepts(obj: Any, x: torch.Tensor) -> Answer:
    """Not another device, not another dtype, and no width whose halves are no whole vectors of 16 bytes."""
    if not x.is_cuda:
        return f"x is on {x.device}, which is no CUDA device"
    if x.dtype not in _DTYPES:
        return f"x is in {x.dtype}, and the kernel computes in half precision and float32"
    if x.shape[-1] * x.itemsize % 32:
        return f"half of {x.shape[-1]} values in {x.dtype} is no multiple of 16 bytes"
    return True


def _act_and_mul(traced: Kernel, name: str) -> ActAndMul:
    def op(obj: Any, x: torch.Tensor) -> torch.Tensor:
        if _launcher is None or ops_are_seen():
            return traced(_readable(x)) if x.numel() else _result(x)
        y = _result(x)
        if y.numel():
            _launcher(x.dtype)(_rows(_readable(x)), _rows(y), name)
        return y

    return op


def _result(x: torch.Tensor) -> torch.Tensor:
    *shape, width = x.shape
    return x.new_empty(*shape, width // 2)


def _readable(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy as the kernel can read it. Compiled code cannot ask for an address; what it allocates is aligned."""
    if x.is_contiguous() and (is_compiling() or not x.data_ptr() & _MISALIGNED):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 2 else x.view(-1, x.shape[-1])


_KERNELS = activations()
_launcher = _KERNELS.launcher
silu_and_mul = _act_and_mul(_KERNELS.silu_and_mul, "silu")
gelu_and_mul = _act_and_mul(_KERNELS.gelu_and_mul, "gelu")
gelu_tanh_and_mul = _act_and_mul(_KERNELS.gelu_tanh_and_mul, "gelu_tanh")
