"""The norms: computed in fp32, rounded once.

The order of the arithmetic is that of SGLang's own ``forward_native``, so that fp32 results have the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from sglang_fl.reference.precision import wide


def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """``x / rms(x) * obj.weight``: x ``[..., d]`` -> y; with a residual of x's shape, -> ``(y, x + residual)``.

    Both in x's dtype, contiguous, and new: no input is overwritten.
    """
    return _rms_norm(x, residual, obj.weight, obj.variance_epsilon)


def gemma_rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """As :func:`rms_norm`, with the factor ``1 + obj.weight``."""
    return _rms_norm(x, residual, 1.0 + obj.weight.to(wide(x.dtype)), obj.variance_epsilon)


def layer_norm(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Layer norm over the last dimension: x ``[..., d]`` -> a new tensor of x's shape and dtype.

    Nothing is rounded before the result, where SGLang first rounds x to the layer's dtype if that is narrower.
    """
    dtype = wide(x.dtype)
    weight = obj.weight.to(dtype) if obj.elementwise_affine else None
    bias = obj.bias.to(dtype) if obj.use_bias else None
    return F.layer_norm(x.to(dtype), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)


def _rms_norm(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, epsilon: float) -> Any:
    # The norm is of the unrounded sum, as in SGLang's RMSNorm and every fused kernel; in half precision SGLang's
    # GemmaRMSNorm.forward_native rounds the sum first. Contiguous, because models call view() on the result.
    total = x.contiguous().to(wide(x.dtype))
    if residual is not None:
        total = total + residual
    scale = torch.rsqrt(total.pow(2).mean(dim=-1, keepdim=True) + epsilon)
    y = (total * scale).mul_(weight).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))
