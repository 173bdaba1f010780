"""What each op must answer, in float64: written from the formulae, once for all backends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from sglang_fl.testing.calls.call import Call


class Exact(NamedTuple):
    """One result.

    Attributes:
        values: in float64.
        terms: the sum of the sizes of the terms that each value is a sum of: where they cancel each other, float32
            arithmetic is as exact as they are, and no more. 0 where nothing cancels.
    """

    values: torch.Tensor
    terms: torch.Tensor


def exact(call: Call) -> tuple[Exact | None, ...]:
    """The results of ``call``, in the order of the op's; None where the op answers None."""
    return _FORMULAE[call.op](call)


def _silu(gate: torch.Tensor) -> torch.Tensor:
    return gate / (1 + torch.exp(-gate))


def _gelu(gate: torch.Tensor) -> torch.Tensor:
    return gate / 2 * torch.special.erfc(-gate / math.sqrt(2))  # not 1 + erf: it cancels where the gate is negative


def _gelu_tanh(gate: torch.Tensor) -> torch.Tensor:
    return gate / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))


def _act_and_mul(act: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Call], tuple[Exact]]:
    def formula(call: Call) -> tuple[Exact]:
        x = _wide(call.inputs["x"])
        half = x.shape[-1] // 2
        gate, up = x[..., :half], x[..., half:]
        return (Exact(act(gate) * up, (gate * up).abs()),)

    return formula


def _rms_norm(offset: float) -> Callable[[Call], tuple[Exact, ...]]:
    def formula(call: Call) -> tuple[Exact, ...]:
        x, residual = _wide(call.inputs["x"]), call.inputs["residual"]
        total = x if residual is None else x + _wide(residual)
        mean_square = (total * total).sum(-1, keepdim=True) / total.shape[-1]
        weight, shift = _wide(call.layer["weight"]) + offset, call.layer["variance_epsilon"]
        normed = total / (mean_square + shift).sqrt()
        y = Exact(normed * weight, normed.abs() * (weight.abs() + abs(offset)))
        return (y,) if residual is None else (y, Exact(total, torch.zeros_like(total)))

    return formula


def _layer_norm(call: Call) -> tuple[Exact]:
    x, layer = _wide(call.inputs["x"]), call.layer
    weight = _wide(layer["weight"]) if layer["elementwise_affine"] else torch.ones(())
    bias = _wide(layer["bias"]) if layer["use_bias"] else torch.zeros(())
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    deviation = (variance + layer["variance_epsilon"]).sqrt()
    terms = (x.abs() + x.abs().mean(-1, keepdim=True)) / deviation * weight.abs() + bias.abs()
    return (Exact((x - mean) / deviation * weight + bias, terms),)


def _rotary_embedding(call: Call) -> tuple[Exact | None, ...]:
    positions = call.inputs["position_ids"].tensor.long()
    cos, sin = (_wide(call.inputs[name])[positions].unsqueeze(1) for name in ("cos", "sin"))
    interleaved = call.inputs["rotary_interleaved"]

    def rotated(rows: torch.Tensor) -> Exact:
        half = rows.shape[-1] // 2
        first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
        a, b = rows[..., first], rows[..., second]
        values, terms = torch.empty_like(rows), torch.empty_like(rows)
        values[..., first], values[..., second] = a * cos - b * sin, b * cos + a * sin
        terms[..., first], terms[..., second] = (a * cos).abs() + (b * sin).abs(), (b * cos).abs() + (a * sin).abs()
        return Exact(values, terms)

    key = call.inputs["key"]
    return rotated(_wide(call.inputs["query"])), None if key is None else rotated(_wide(key))


def _wide(placed: object) -> torch.Tensor:
    tensor: torch.Tensor = placed.tensor  # type: ignore[attr-defined]
    return tensor.double()


_FORMULAE: dict[str, Callable[[Call], tuple[Exact | None, ...]]] = {
    "silu_and_mul": _act_and_mul(_silu),
    "gelu_and_mul": _act_and_mul(_gelu),
    "gelu_tanh_and_mul": _act_and_mul(_gelu_tanh),
    "rms_norm": _rms_norm(0.0),
    "gemma_rms_norm": _rms_norm(1.0),
    "layer_norm": _layer_norm,
    "rotary_embedding": _rotary_embedding,
}
