"""The norms. With a residual, RMS norms overwrite both inputs, where their layout allows it."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_compiling

from sglang_fl.ops import RmsNorm
from sglang_fl.records import Answer
from sglang_fl_cuda.attributes import parameter
from sglang_fl_cuda.kernels import Kernel, norms

_HALVES = (torch.bfloat16, torch.float16)
_MISALIGNED = 127  # the bits of an address that a kernel for contiguous rows may want at zero
_UNEVEN = 15  # those that one for rows with gaps wants at zero, in every row


def accepts(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Answer:
    """Half precision on CUDA, in one dtype: the kernel takes the weight's memory for the dtype of x, unchecked."""
    dtype = x.dtype
    if not x.is_cuda:
        return f"x is on {x.device}, which is no CUDA device"
    if dtype not in _HALVES:
        return f"x is in {dtype}, and the kernel takes half precision"
    weight = parameter(obj, "weight")
    if weight.dtype is not dtype:
        return f"the weight is in {weight.dtype}, and the kernel would read it as x's {dtype}"
    if not weight.is_contiguous():
        return f"the weight's values lie {weight.stride(0)} apart, and the kernel reads them side by side"
    if residual is not None and residual.dtype is not dtype:
        return f"the residual is in {residual.dtype}, and the kernel would read it as x's {dtype}"
    return True


def _rms_norm(norm: Kernel, add_norm: Kernel) -> RmsNorm:
    def op(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        weight, epsilon = parameter(obj, "weight").data, obj.variance_epsilon
        # Most calls are of rows that the kernel can read as they are. Compiled code cannot ask for an address: what it
        # allocates is aligned.
        if x.dim() == 2 and x.is_contiguous() and x.numel():
            if residual is None:
                if is_compiling() or not (x.data_ptr() | weight.data_ptr()) & _MISALIGNED:
                    return norm(x, weight, epsilon)
            elif (
                residual.is_contiguous()
                and residual is not x
                and (is_compiling() or not (x.data_ptr() | residual.data_ptr() | weight.data_ptr()) & _MISALIGNED)
            ):
                add_norm(x, residual, weight, epsilon)
                return x, residual
        if _address(weight) & _UNEVEN:
            weight = weight.clone()
        if residual is None:
            return _norm(norm, x, weight, epsilon)
        return _add_norm(add_norm, x, residual, weight, epsilon)

    return op


def _norm(norm: Kernel, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    if x.numel() == 0:
        return torch.empty_like(x)
    return norm(_rows(x), weight, epsilon).view(x.shape)


def _add_norm(
    add_norm: Kernel, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if x.numel() == 0:
        return x, residual
    y, total = _rows(x), _rows(residual.clone() if residual is x else residual)
    add_norm(y, total, weight, epsilon)
    return y.view(x.shape), total.view(x.shape)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """x ``[..., d]`` as ``[n, d]`` such that every row starts where the kernels can read: x's own memory, or a copy."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.is_contiguous():
        misaligned = _address(rows) & _MISALIGNED
    else:
        apart, together = rows.stride()
        in_order = together == 1 and apart >= rows.shape[1]
        misaligned = not in_order or (_address(rows) | apart * rows.itemsize) & _UNEVEN
    return rows.clone(memory_format=torch.contiguous_format) if misaligned else rows


def _address(tensor: torch.Tensor) -> int:
    """Where the tensor starts. Compiled code cannot ask: what it allocates is aligned."""
    return 0 if is_compiling() else int(tensor.data_ptr())


_KERNELS = norms()
rms_norm = _rms_norm(_KERNELS.rmsnorm, _KERNELS.fused_add_rmsnorm)
gemma_rms_norm = _rms_norm(_KERNELS.gemma_rmsnorm, _KERNELS.gemma_fused_add_rmsnorm)
