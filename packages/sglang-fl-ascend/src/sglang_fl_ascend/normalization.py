"""The norms, over the last dimension of x ``[..., d]``. All answers are new tensors of x's shape and dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_npu

_Norm = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, float], Any]


def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """``x / rms(x) * obj.weight``; with a residual, that of the sum, and the sum."""
    return _in_one_dtype(_rms_norm, obj, x, residual)


def gemma_rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """As :func:`rms_norm`, with the factor ``1 + obj.weight``.

    The sum is rounded to x's dtype before it is normed, as in SGLang's own ``forward_native``. ``npu_add_rms_norm``
    would norm the unrounded one, but wants the factor in x's dtype, and a factor near 1 loses more in bfloat16.
    """
    return _in_one_dtype(_gemma_rms_norm, obj, x, residual)


def layer_norm(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Layer norm in the widest dtype among x, weight and bias, which the operator wants to be one."""
    weight = obj.weight if obj.elementwise_affine else None
    bias = obj.bias if obj.use_bias else None
    dtype = x.dtype
    for parameter in (weight, bias):
        dtype = dtype if parameter is None else torch.promote_types(dtype, parameter.dtype)
    weight, bias = (None if parameter is None else parameter.to(dtype) for parameter in (weight, bias))
    return F.layer_norm(x.to(dtype), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)


def _rms_norm(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, epsilon: float) -> Any:
    if residual is None:
        return torch_npu.npu_rms_norm(x, weight, epsilon)[0]
    y, _, total = torch_npu.npu_add_rms_norm(x, residual, weight, epsilon)
    return y, total


def _gemma_rms_norm(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, epsilon: float) -> Any:
    # npu_gemma_rms_norm adds the 1 itself; it takes no strided tensor.
    total = (x if residual is None else x + residual).contiguous()
    y = torch_npu.npu_gemma_rms_norm(total, weight, epsilon)[0]
    return y if residual is None else (y, total)


def _in_one_dtype(norm: _Norm, obj: Any, x: torch.Tensor, residual: torch.Tensor | None) -> Any:
    """``norm`` in the wider dtype of x and the weight: the operators take no two."""
    weight, epsilon = obj.weight, obj.variance_epsilon
    if weight.dtype is x.dtype:
        return norm(x, residual, weight, epsilon)
    dtype = torch.promote_types(x.dtype, weight.dtype)
    if residual is None:
        return norm(x.to(dtype), None, weight.to(dtype), epsilon).to(x.dtype)
    y, total = norm(x.to(dtype), residual.to(dtype), weight.to(dtype), epsilon)
    return y.to(x.dtype), total.to(x.dtype)
