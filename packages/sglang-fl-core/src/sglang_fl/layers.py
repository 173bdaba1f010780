"""The names of SGLang's layers that the adapter can serve. Names only: importing SGLang is the adapter's part."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LAYERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "SiluAndMul": ("silu_and_mul",),
        "GeluAndMul": ("gelu_tanh_and_mul", "gelu_and_mul"),
        "RMSNorm": ("rms_norm",),
        "GemmaRMSNorm": ("gemma_rms_norm",),
        "Gemma3RMSNorm": ("gemma_rms_norm",),
        "LayerNorm": ("layer_norm",),
        "RotaryEmbedding": ("rotary_embedding",),
    }
)
"""Layer class -> the ops that can serve it, one of them per layer."""

SUBCLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "RMSNorm": ("Gemma3nRMSNorm", "Glm4vRMSNorm", "GlmOcrRMSNorm"),
        "SiluAndMul": ("BeamSiluAndMul",),
        "RotaryEmbedding": (
            "BeamRotaryEmbedding",
            "ScalingRotaryEmbedding",
            "LinearScalingRotaryEmbedding",
            "DynamicNTKScalingRotaryEmbedding",
            "DynamicNTKAlphaRotaryEmbedding",
            "YaRNScalingRotaryEmbedding",
            "Llama3RotaryEmbedding",
            "Gemma4RotaryEmbedding",
        ),
    }
)
"""Layer class -> its subclasses in SGLang that inherit its forwards, and so are served as it is."""

WRAPPERS = ("HFCompatibleRMSNorm",)
"""Subclasses of any norm that SGLang makes on the spot, for transformers' models: their forward flattens what it is
given, and calls the norm's own."""

LAYER_NAMES: tuple[str, ...] = (*LAYERS, *(name for names in SUBCLASSES.values() for name in names))
"""What ``oot_blacklist`` and ``oot_whitelist`` may name, besides ops."""

OWN = "SGLang"
"""What the table of bound layers calls the implementation of a layer that keeps SGLang's own forward."""
