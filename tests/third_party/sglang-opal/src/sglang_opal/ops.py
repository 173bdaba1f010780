"""Opal's kernels. They compute in fp32, and overwrite what they may."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def silu_and_mul(obj: Any, x: Tensor) -> Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    return (gate * up / (1 + torch.exp(-gate))).to(x.dtype)


def fits(obj: Any, x: Tensor) -> bool | str:
    return x.shape[-1] % 16 == 0 or "Opal takes rows of a multiple of 16"


def rms_norm(obj: Any, x: Tensor, residual: Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual
    y = total / torch.sqrt(total.square().mean(-1, keepdim=True) + obj.variance_epsilon) * obj.weight
    return y.to(x.dtype) if residual is None else (x.copy_(y), residual.copy_(total))


def rotary_embedding(
    obj: Any,
    query: Tensor,
    key: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> tuple[Tensor | None, ...]:
    pairs, dim = ((-1, 2), -1) if rotary_interleaved else ((2, -1), -2)
    turn = torch.complex(cos[position_ids].float(), sin[position_ids].float()).unsqueeze(1)
    return tuple(x if x is None else _turned(x if inplace else x.clone(), turn, pairs, dim) for x in (query, key))


def _turned(x: Tensor, turn: Tensor, pairs: tuple[int, int], dim: int) -> Tensor:
    turned = torch.complex(*x.float().unflatten(-1, pairs).unbind(dim)) * turn
    return x.copy_(torch.stack((turned.real, turned.imag), dim).flatten(-2))
