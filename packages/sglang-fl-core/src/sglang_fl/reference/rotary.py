"""Rotary position embedding: computed in fp32, rounded once."""

from __future__ import annotations

from typing import Any

import torch

from sglang_fl.reference.precision import wide


def rotary_embedding(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rotates query ``[T, H, R]`` and key ``[T, K, R]`` (or None) by their positions.

    cos and sin ``[max_position, R / 2]``; position_ids ``[T]``, int32 or int64. Returns new contiguous tensors,
    whatever ``inplace`` allows. RuntimeError when a row of query or key is not R wide.
    """
    # Rows first, then the dtype: a whole cache may be a thousand times larger.
    dtype = wide(query.dtype)
    cos, sin = (table.index_select(0, position_ids).unsqueeze(1).to(dtype) for table in (cos, sin))
    rotated_key = None if key is None else _rotate(key, cos, sin, rotary_interleaved)
    return _rotate(query, cos, sin, rotary_interleaved), rotated_key


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    half = cos.shape[-1]
    pairs, dim = ((half, 2), -1) if interleaved else ((2, half), -2)
    first, second = x.to(wide(x.dtype)).view(*x.shape[:-1], *pairs).unbind(dim)
    rotated = torch.stack(((first * cos).sub_(second * sin), (second * cos).add_(first * sin)), dim)
    return rotated.flatten(-2).to(x.dtype)
