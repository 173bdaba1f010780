"""SiluAndMul and GeluAndMul: ``forward(x)``."""

from __future__ import annotations

from types import MethodType
from typing import Any

from sglang_fl.adapter.bridges.base import Bridge, Forward, always_op, never


def _forward(layer: Any, fn: Forward, own: Forward) -> Forward:
    return MethodType(fn, layer)  # the op's arguments are the layer's: no frame of ours in between


def _gelu_op(layer: Any) -> str | None:
    return {"tanh": "gelu_tanh_and_mul", "none": "gelu_and_mul"}.get(layer.approximate)


SILU_AND_MUL = Bridge("sglang.srt.layers.activation:SiluAndMul", always_op("silu_and_mul"), never, _forward)
GELU_AND_MUL = Bridge("sglang.srt.layers.activation:GeluAndMul", _gelu_op, never, _forward)
