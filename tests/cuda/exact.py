"""What the ops must answer, in float64 on the CPU, and how near an answer must be."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

from sglang_fl.ops import TOLERANCE


def wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().double()


def act_and_mul(op: str, x: torch.Tensor) -> torch.Tensor:
    gate, up = wide(x).chunk(2, dim=-1)
    if op == "silu_and_mul":
        return gate * torch.sigmoid(gate) * up
    if op == "gelu_and_mul":
        return gate / 2 * torch.special.erfc(-gate / math.sqrt(2)) * up
    return gate / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up


def rms_norm(op: str, obj: SimpleNamespace, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = wide(x) if residual is None else wide(x) + wide(residual)
    weight = wide(obj.weight) + (1 if op == "gemma_rms_norm" else 0)
    y = total / (total.square().mean(-1, keepdim=True) + obj.variance_epsilon).sqrt() * weight
    return y if residual is None else (y, total)


def layer_norm(obj: SimpleNamespace, x: torch.Tensor) -> torch.Tensor:
    values = wide(x)
    centred = values - values.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + obj.variance_epsilon).sqrt()
    scaled = normed * wide(obj.weight) if obj.elementwise_affine else normed
    return scaled + wide(obj.bias) if obj.use_bias else scaled


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor, interleaved: bool) -> Any:
    """x ``[T, H, R]`` rotated, and for each element the size of the terms whose sum it is."""
    c, s = (wide(table)[positions.cpu().long()].unsqueeze(1) for table in (cos, sin))
    half = cos.shape[1]
    pairs, dim = ((half, 2), -1) if interleaved else ((2, half), -2)
    first, second = wide(x).unflatten(-1, pairs).unbind(dim)
    values = torch.stack((first * c - second * s, second * c + first * s), dim).flatten(-2)
    terms = torch.stack(((first * c).abs() + (second * s).abs(), (second * c).abs() + (first * s).abs()), dim)
    return values, terms.flatten(-2)


def assert_near(
    got: torch.Tensor, wanted: torch.Tensor, terms: torch.Tensor | float = 1.0, roundings: int | None = None
) -> None:
    """``got`` is ``wanted``, but for the contract's tolerance, and that of float32 relative to ``terms``.

    Or, where ``roundings`` is a number, but for as many roundings of ``terms`` to the dtype of ``got``.
    """
    info, tolerance = torch.finfo(got.dtype), TOLERANCE[str(got.dtype).removeprefix("torch.")]
    allowed = tolerance * wanted.abs() + TOLERANCE["float32"] * terms + info.smallest_normal * info.eps
    if roundings is not None:
        allowed = roundings * info.eps * terms
    off = (wide(got) - wanted).abs() - allowed
    assert got.shape == wanted.shape
    assert bool((off <= 0).all()), f"off by {float(off.max()):.3g} more than allowed"
