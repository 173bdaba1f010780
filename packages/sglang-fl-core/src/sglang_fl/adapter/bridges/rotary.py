"""RotaryEmbedding: SGLang keeps cos and sin side by side in one cache, and heads flat in one row."""

from __future__ import annotations

from typing import Any

import torch

from sglang_fl.adapter.bridges.base import Bridge, Forward, always_op, never


def _rotary(layer: Any, fn: Forward, own: Forward) -> Forward:
    buffers, state = layer._buffers, layer.__dict__
    head_size, rotary_dim = layer.head_size, layer.rotary_dim
    interleaved = not layer.is_neox_style
    cache = cos = sin = None

    def forward(
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None,
        offsets: torch.Tensor | None = None,
        fused_set_kv_buffer_arg: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        nonlocal cache, cos, sin
        # SGLang's NPU code leaves a cache of one batch on the layer, by this name.
        if fused_set_kv_buffer_arg is not None or "sin_cos_cache" in state:
            return own(positions, query, key, offsets, fused_set_kv_buffer_arg)  # type: ignore[no-any-return]
        if cache is not buffers["cos_sin_cache"]:  # SGLang replaces it when it grows or moves
            cache = buffers["cos_sin_cache"]
            cos, sin = cache.chunk(2, dim=-1)
        if offsets is not None:
            positions = positions + offsets
        if positions.dim() != 1:
            positions = positions.flatten()
        tokens = positions.shape[0]
        q = query.view(tokens, -1, head_size)
        k = None if key is None else key.view(tokens, -1, head_size)
        if rotary_dim == head_size:
            q, k = fn(layer, q, k, cos, sin, positions, interleaved, True)
        else:
            q, k = _partial(layer, fn, q, k, (cos, sin), positions, interleaved)
        return q.reshape(query.shape), None if key is None or k is None else k.reshape(key.shape)

    return forward


def _partial(
    layer: Any,
    fn: Forward,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos_sin: tuple[Any, Any],
    positions: torch.Tensor,
    interleaved: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rotates the first ``rotary_dim`` of each head and passes the rest."""
    size = layer.rotary_dim
    q = query[..., :size]
    k = None if key is None else key[..., :size]
    rotated_q, rotated_k = fn(layer, q, k, *cos_sin, positions, interleaved, True)
    return _joined(query, q, rotated_q), None if key is None else _joined(key, k, rotated_k)


def _joined(whole: torch.Tensor, part: Any, rotated: torch.Tensor) -> torch.Tensor:
    if rotated is part:  # rotated in place: the whole holds it already
        return whole
    return torch.cat((rotated, whole[..., rotated.shape[-1] :]), dim=-1)


ROTARY_EMBEDDING = Bridge(
    "sglang.srt.layers.rotary_embedding.base:RotaryEmbedding", always_op("rotary_embedding"), never, _rotary
)
