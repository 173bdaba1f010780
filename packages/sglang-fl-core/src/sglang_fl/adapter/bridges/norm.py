"""The norms. RMSNorm's forward has two arguments that the op has not; it is the same op all the same."""

from __future__ import annotations

from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from sglang.srt.environ import envs
from sglang.srt.platforms import current_platform
from sglang.srt.utils.common import is_npu

from sglang_fl.adapter.bridges.base import FUSED, Bridge, Forward, always_op, never

_UNEXPRESSED = {
    "cast_x_before_out_mul": False,
    "fp32_residual": False,
    "override_orig_dtype": None,
    "variance_size_override": None,
    "x_pad_to_multiple": 0,
}
"""What an RMSNorm can be built with that changes its result, and the value at which it does not."""


def _rms_norm_reason(layer: Any) -> str | None:
    for name, neutral in _UNEXPRESSED.items():
        value = getattr(layer, name, neutral)
        if value != neutral:
            return f"{name}={value}"
    if _quantizes(layer.__dict__.get("_quant_linear")):
        return FUSED
    return None


def _rms_norm(layer: Any, fn: Forward, own: Forward) -> Forward:
    state = layer.__dict__
    asked, quantizes = None, False

    def forward(
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        post_residual_addition: torch.Tensor | None = None,
        quant_linear: Any = None,
    ) -> Any:
        nonlocal asked, quantizes
        linear = state.get("_quant_linear") if quant_linear is None else quant_linear
        if linear is not asked:
            asked, quantizes = linear, _quantizes(linear)
        if quantizes:
            return own(x, residual, post_residual_addition, quant_linear)
        if post_residual_addition is not None and residual is not None:
            residual = residual + post_residual_addition
        return fn(layer, x, residual)

    return forward


def _quantizes(linear: Any) -> bool:
    """Would SGLang answer in FP8 for ``linear``, which consumes the norm? On its own platforms only."""
    if linear is None or current_platform.is_out_of_tree():
        return False
    from sglang.srt.layers.layernorm import _fp8_static_input_scale  # noqa: PLC0415 - of the releases with quant_linear

    return _fp8_static_input_scale(linear) is not None


def _gemma_reason(layer: Any) -> str | None:
    if is_npu() and envs.SGLANG_NPU_FORWARD_NATIVE_GEMMA_RMS_NORM.get():
        return "SGLANG_NPU_FORWARD_NATIVE_GEMMA_RMS_NORM leaves it to PyTorch"
    return None


def _gemma_rms_norm(layer: Any, fn: Forward, own: Forward) -> Forward:
    def forward(
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        post_residual_addition: torch.Tensor | None = None,
    ) -> Any:
        if post_residual_addition is not None and residual is not None:
            residual = residual + post_residual_addition
        return fn(layer, x, residual)

    return forward


def _gemma3_rms_norm(layer: Any, fn: Forward, own: Forward) -> Forward:
    layer.variance_epsilon = layer.eps  # the name under which an op looks for it

    def forward(x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        # SGLang gives its kernel rows, and keeps the layout of all else: until 0.5.21 Gemma 3's heads are transposed
        # before the norm and back after it, and then seen as rows.
        if residual is None and x.dim() > 2 and not _in_order(x):
            return own(x)
        return fn(layer, x, residual)

    return forward


def _in_order(x: torch.Tensor) -> bool:
    """Does each dimension lie further apart than the next?"""
    strides = x.stride()
    return all(stride >= following for stride, following in pairwise(strides))


def _layer_norm(layer: Any, fn: Forward, own: Forward) -> Forward:
    return MethodType(fn, layer)


_HOME = "sglang.srt.layers.layernorm"
RMS_NORM = Bridge(f"{_HOME}:RMSNorm", always_op("rms_norm"), _rms_norm_reason, _rms_norm)
GEMMA_RMS_NORM = Bridge(f"{_HOME}:GemmaRMSNorm", always_op("gemma_rms_norm"), _gemma_reason, _gemma_rms_norm)
GEMMA3_RMS_NORM = Bridge(f"{_HOME}:Gemma3RMSNorm", always_op("gemma_rms_norm"), _gemma_reason, _gemma3_rms_norm)
LAYER_NORM = Bridge(f"{_HOME}:LayerNorm", always_op("layer_norm"), never, _layer_norm)
