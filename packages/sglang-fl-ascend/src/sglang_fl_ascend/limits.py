"""Which legal calls torch_npu's operators do not take, by the vendor's documentation: asked before every call.

Sources: the docstrings in torch_npu 2.13.0, and the pages of CANN's ``aclnn`` functions that it calls. Where the two
differ, both hold. What can be mended (a layout, a dtype that is too narrow) is mended by the ops; what cannot is here.
"""

from __future__ import annotations

from typing import Any

import torch

from sglang_fl.records import Answer

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MOST_DIMENSIONS = 8


def silu_and_mul(obj: Any, x: torch.Tensor) -> Answer:
    """``npu_swiglu`` (aclnnSwiGlu)."""
    return _takes("npu_swiglu", x)


def gelu_and_mul(obj: Any, x: torch.Tensor) -> Answer:
    """``npu_geglu`` (aclnnGeGluV3)."""
    return _takes("npu_geglu", x)


gelu_tanh_and_mul = gelu_and_mul


def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Answer:
    """``npu_rms_norm`` and ``npu_add_rms_norm`` (aclnnRmsNorm, aclnnAddRmsNorm)."""
    if residual is not None and residual.dtype is not x.dtype:
        return f"npu_add_rms_norm takes x and residual of one dtype, not {x.dtype} and {residual.dtype}"
    return _takes("npu_rms_norm", x, least=2)


def gemma_rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Answer:
    """``npu_gemma_rms_norm`` (aclnnGemmaRmsNorm)."""
    return _takes("npu_gemma_rms_norm", x)


def layer_norm(obj: Any, x: torch.Tensor) -> Answer:
    """``torch.nn.functional.layer_norm`` on an NPU (aclnnLayerNorm)."""
    return _takes("layer_norm on an NPU", x)


def rotary_embedding(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> Answer:
    """``npu_mrope`` (aclnnRopeWithSinCosCache), which computes in the dtype of the cache."""
    dtype = obj.cos_sin_cache.dtype
    if dtype is not query.dtype and dtype is not torch.float32:
        return f"npu_mrope takes a cache of the query's dtype or of float32, not {dtype} for {query.dtype}"
    if query.shape[-1] % (16 if dtype is torch.float32 else 32):
        return "npu_mrope turns a multiple of 32 elements of a head, or of 16 in float32"
    return _takes("npu_mrope", query)


def _takes(operator: str, x: torch.Tensor, least: int = 1) -> Answer:
    if x.dtype not in _DTYPES:
        return f"{operator} takes float16, bfloat16 and float32, not {x.dtype}"
    if x.numel() == 0:
        return f"{operator} does not take empty tensors in every release"
    if not least <= x.dim() <= _MOST_DIMENSIONS:
        return f"{operator} takes {least} to {_MOST_DIMENSIONS} dimensions, not {x.dim()}"
    return True
