"""Rotary position embedding by ``npu_mrope``. It looks positions up in the layer's cache: nothing is gathered here."""

from __future__ import annotations

from typing import Any

import torch
import torch_npu

_NO_SECTIONS = [0, 0, 0]
"""Of mrope: with none, the operator is plain rope."""


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
    """Rotates query ``[T, H, R]`` and key ``[T, K, R]`` (or None) by their positions ``[T]``.

    Reads ``obj.cos_sin_cache``, of which cos and sin are the halves, and computes in its dtype. Returns new tensors,
    whatever ``inplace`` allows.
    """
    cache, width = obj.cos_sin_cache, query.shape[-1]
    query_rows = _rows(query, cache.dtype)
    # The operator always turns a key: without one, a query head that is thrown away.
    key_rows = query_rows[:, :width] if key is None else _rows(key, cache.dtype)
    mode = "interleave" if rotary_interleaved else "half"
    rotated_query, rotated_key = torch_npu.npu_mrope(
        position_ids.long(), query_rows, key_rows, cache, width, mrope_section=_NO_SECTIONS, rotary_mode=mode
    )
    return _like(query, rotated_query), None if key is None else _like(key, rotated_key)


def _rows(heads: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A row per token; a view, where the heads lie side by side. The operator takes any distance between rows, but
    no gaps within."""
    rows = heads.flatten(1)
    if rows.dtype is not dtype:
        rows = rows.to(dtype)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _like(heads: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    like = rows.view_as(heads)
    return like if like.dtype is heads.dtype else like.to(heads.dtype)
