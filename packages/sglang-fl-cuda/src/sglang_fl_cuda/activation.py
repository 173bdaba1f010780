"""The gated activations: x ``[..., 2d]`` in half precision or float32, of any strides, -> ``[..., d]``, contiguous."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_compiling

from sglang_fl.ops import ActAndMul
from sglang_fl.records import Answer
from sglang_fl_cuda.kernels import Kernel, activations

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


def _act_and_mul(kernel: Kernel) -> ActAndMul:
    def op(obj: Any, x: torch.Tensor) -> torch.Tensor:
        # Compiled code cannot ask for an address; what it allocates is aligned.
        if x.is_contiguous() and x.numel() and (is_compiling() or not x.data_ptr() & _MISALIGNED):
            return kernel(x)
        if x.numel() == 0:
            return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
        return kernel(x.clone(memory_format=torch.contiguous_format))

    return op


_KERNELS = activations()
silu_and_mul = _act_and_mul(_KERNELS.silu_and_mul)
gelu_and_mul = _act_and_mul(_KERNELS.gelu_and_mul)
gelu_tanh_and_mul = _act_and_mul(_KERNELS.gelu_tanh_and_mul)
