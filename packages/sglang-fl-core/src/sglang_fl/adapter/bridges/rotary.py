"""RotaryEmbedding: SGLang keeps cos and sin side by side in one cache, and heads flat in one row."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.utils.common import is_npu

from sglang_fl.adapter.bridges.base import Bridge, Forward, always_op, never


def _rotary(layer: Any, fn: Forward, own: Forward) -> Forward:
    buffers, state = layer._buffers, layer.__dict__
    head_size, rotary_dim = layer.head_size, layer.rotary_dim
    partial, interleaved = rotary_dim != head_size, not layer.is_neox_style
    in_place = not is_npu()  # Llama 4 goes on with what it gave; on an NPU alone it takes what it gets
    cache = cos = sin = None

    def heads(rows: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows by head, and the part of each head that is rotated."""
        by_head = rows.view(tokens, -1, head_size)
        return by_head, by_head[..., :rotary_dim] if partial else by_head

    def forward(
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None,
        offsets: torch.Tensor | None = None,
        fused_set_kv_buffer_arg: Any = None,
    ) -> Any:
        nonlocal cache, cos, sin
        # SGLang's NPU code leaves a cache of one batch on the layer, by this name.
        if fused_set_kv_buffer_arg is not None or "sin_cos_cache" in state:
            return own(positions, query, key, offsets, fused_set_kv_buffer_arg)
        if cache is not buffers["cos_sin_cache"]:  # SGLang replaces it when it grows or moves
            cache = buffers["cos_sin_cache"]
            cos, sin = cache.chunk(2, dim=-1)
        if offsets is not None:
            positions = positions + offsets
        if positions.dim() != 1:
            positions = positions.flatten()
        tokens = positions.size(0)
        if tokens == 0:  # no view can tell the heads of no rows
            return query, key
        if query is key:  # SGLang's sparse attention rotates keys alone, and gives them for queries, too
            query = torch.clone(query)
        q_heads, q = heads(query, tokens)
        if key is None:
            rotated_q, _ = fn(layer, q, None, cos, sin, positions, interleaved, True)
            return _whole(query, q_heads, q, rotated_q, in_place), None
        k_heads, k = heads(key, tokens)
        rotated_q, rotated_k = fn(layer, q, k, cos, sin, positions, interleaved, True)
        return _whole(query, q_heads, q, rotated_q, in_place), _whole(key, k_heads, k, rotated_k, in_place)

    return forward


def _whole(
    rows: torch.Tensor, heads: torch.Tensor, part: torch.Tensor, rotated: torch.Tensor, in_place: bool
) -> torch.Tensor:
    """The rows with ``part`` of their heads rotated."""
    if rotated is part:  # the rows hold it already
        return rows
    if in_place:
        part.copy_(rotated)
        return rows
    if part is not heads:
        rotated = torch.cat((rotated, heads[..., part.shape[-1] :]), dim=-1)
    return rotated.reshape(rows.shape)


ROTARY_EMBEDDING = Bridge(
    "sglang.srt.layers.rotary_embedding.base:RotaryEmbedding", always_op("rotary_embedding"), never, _rotary
)
