"""Calls of the rotary embedding."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.numbers import activations
from sglang_fl.testing.calls.placed import Layout, Placed, place
from sglang_fl.testing.calls.space import Space, either


@st.composite
def rotary_embedding(draw: st.DrawFn, op: str, space: Space) -> Call:
    """query ``[T, H, R]`` and key ``[T, K, R]``, maybe the first part of wider heads; one cache for cos and sin."""
    tokens, dtype = math.prod(draw(space.leads)), draw(st.sampled_from(space.dtypes))
    rotary_dim = 2 * draw(space.widths.map(lambda width: -(-width // 2)))
    partial, interleaved = draw(either(space.partial)), draw(either(space.interleaved))
    magnitude = draw(st.sampled_from(space.magnitudes))
    head_layout = draw(st.sampled_from((Layout.WIDER_ROWS, Layout.UNALIGNED_ROWS)))  # as wide for keys as for queries

    def heads() -> Placed:
        shape = (tokens, draw(st.integers(1, space.max_heads)), rotary_dim)
        if partial:
            return draw(activations(shape, dtype, (head_layout,), magnitude))
        rows = (tokens, shape[1] * rotary_dim)  # all heads side by side, as in the rows of a QKV projection
        return draw(activations(rows, dtype, space.layouts, magnitude)).as_shape(*shape)

    table_dtype = torch.float32 if draw(either(space.float32_tables)) else dtype
    cache = place(_cos_sin_cache(space.max_position, rotary_dim // 2).to(table_dtype))
    query = heads()
    layer = {
        "head_size": query.tensor.stride(1) if partial else rotary_dim,
        "rotary_dim": rotary_dim,
        "is_neox_style": not interleaved,
        "cos_sin_cache": cache,
    }
    inputs = {
        "query": query,
        "key": heads() if draw(either(space.key)) else None,
        **_halves(cache),
        "position_ids": draw(_positions(tokens, space.max_position)),
        "rotary_interleaved": interleaved,
        "inplace": draw(either(space.inplace)),
    }
    return Call(op, layer, inputs)


@st.composite
def _positions(draw: st.DrawFn, tokens: int, max_position: int) -> Placed:
    """The first, the last, any others; in no order."""
    among = st.sampled_from([0, max_position - 1]) | st.integers(0, max_position - 1)
    numbers = draw(st.lists(among, min_size=tokens, max_size=tokens)) if tokens < 64 else _spread(tokens, max_position)
    return place(torch.tensor(numbers, dtype=draw(st.sampled_from([torch.int64, torch.int32]))))


def _spread(tokens: int, max_position: int) -> list[int]:
    numbers = torch.randint(max_position, (tokens,), generator=torch.Generator().manual_seed(tokens))
    return [int(number) for number in numbers]


@functools.lru_cache(maxsize=64)
def _cos_sin_cache(rows: int, half: int) -> torch.Tensor:
    angles = torch.arange(rows).double().outer(10000.0 ** (-torch.arange(half).double() / half))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _halves(cache: Placed) -> dict[str, Any]:
    """cos and sin as SGLang's layer passes them: views of its one cache."""
    halves = zip(("cos", "sin"), cache.tensor.chunk(2, dim=-1), strict=True)
    return {name: Placed(half, cache.memory, Layout.WIDER_ROWS) for name, half in halves}
