"""Layer norm, as SGLang computes it: by flashinfer for bfloat16 with float32 weights, by PyTorch for all else."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.compiler import is_compiling

from sglang_fl.records import Answer
from sglang_fl_cuda import kernels
from sglang_fl_cuda.attributes import parameter

_FLASHINFER = kernels.layer_norm()
_MISALIGNED = 15  # the bits of an address that flashinfer's kernel wants at zero, in every row


def accepts(obj: Any, x: torch.Tensor) -> Answer:
    """Whatever is on a CUDA device."""
    return True if x.is_cuda else f"x is on {x.device}, which is no CUDA device"


def layer_norm(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Layer norm over the last dimension: x ``[..., d]`` -> a new tensor of x's shape and dtype.

    Computed in the widest of the dtypes of x, weight and bias, or wider, and rounded once.
    """
    weight = parameter(obj, "weight") if obj.elementwise_affine else None
    bias = parameter(obj, "bias") if obj.use_bias else None
    if _FLASHINFER is not None and weight is not None and bias is not None and _suits_flashinfer(x, weight, bias):
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return _FLASHINFER(rows, weight.data, bias.data, obj.variance_epsilon).view(x.shape)
    dtype = x.dtype
    for tensor in (weight, bias):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    weight, bias = (None if tensor is None else tensor.to(dtype) for tensor in (weight, bias))
    return F.layer_norm(x.to(dtype), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)


def _suits_flashinfer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    return (
        x.dtype is torch.bfloat16
        and weight.dtype is torch.float32
        and bias.dtype is torch.float32
        and x.numel() != 0
        and x.shape[-1] % 8 == 0
        # Compiled code cannot ask for an address; what it allocates is aligned.
        and (is_compiling() or not (x.data_ptr() | weight.data_ptr() | bias.data_ptr()) & _MISALIGNED)
    )
