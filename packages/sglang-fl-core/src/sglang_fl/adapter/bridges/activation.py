"""SiluAndMul and GeluAndMul: ``forward(x)``."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch

from sglang_fl.adapter.bridges.base import Bridge, Forward, always_op, never


def _forward(layer: Any, fn: Forward, own: Forward) -> Forward:
    return MethodType(fn, layer)  # the op's arguments are the layer's: no frame of ours in between


def _gelu_op(layer: Any) -> str | None:
    return {"tanh": "gelu_tanh_and_mul", "none": "gelu_and_mul"}.get(layer.approximate)


def fused_activations(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The layers of ``model`` that SGLang, from 0.5.23 on, fuses with a quantization if their forward is its own."""
    for module in model.modules():
        if getattr(getattr(module, "activation_quant", None), "enabled", False):
            yield module.act_fn


SILU_AND_MUL = Bridge("sglang.srt.layers.activation:SiluAndMul", always_op("silu_and_mul"), never, _forward)
GELU_AND_MUL = Bridge("sglang.srt.layers.activation:GeluAndMul", _gelu_op, never, _forward)
