"""Translates a layer's call into an op's: one bridge for each SGLang class that the plugin can serve."""

from __future__ import annotations

from sglang_fl.adapter.bridges.activation import GELU_AND_MUL, SILU_AND_MUL, fused_activations
from sglang_fl.adapter.bridges.base import Bridge
from sglang_fl.adapter.bridges.norm import GEMMA3_RMS_NORM, GEMMA_RMS_NORM, LAYER_NORM, RMS_NORM
from sglang_fl.adapter.bridges.rotary import ROTARY_EMBEDDING

BRIDGES: tuple[Bridge, ...] = (
    SILU_AND_MUL,
    GELU_AND_MUL,
    RMS_NORM,
    GEMMA_RMS_NORM,
    GEMMA3_RMS_NORM,
    LAYER_NORM,
    ROTARY_EMBEDDING,
)

__all__ = ["BRIDGES", "Bridge", "fused_activations"]
