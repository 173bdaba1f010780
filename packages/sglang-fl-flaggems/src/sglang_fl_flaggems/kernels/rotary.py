"""Rotary position embedding of query and key, in one launch: in fp32, rounded once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
import triton.language as tl

from sglang_fl_flaggems.kernels.launch import MANY, VECTOR, Kernel, Relaunch, device_function, power_of_2
from sglang_fl_flaggems.kernels.rows import require_floats


class Plan(NamedTuple):
    """How to rotate heads like others in place.

    Attributes:
        relaunch: launches what was compiled for them.
        groups: how many programs share a token's heads.
        most: how many tokens there were: at the same strides more of them may share memory.
    """

    relaunch: Relaunch
    groups: int
    most: int


_known: dict[Hashable, Plan] = {}
"""What a launch in place depends on -> how it was launched."""


class HeadTile(NamedTuple):
    """What one program works on: some of a token's heads.

    Attributes:
        queries: how many query heads, and ``keys``: how many key heads: powers of two.
        groups: how many programs share a token's heads.
        warps: by how many warps.
    """

    queries: int
    keys: int
    groups: int
    warps: int


def config(queries: int, keys: int, half: int, many: bool) -> HeadTile:
    """The tile for a token with these heads, each ``2 * half`` wide, among many tokens or few."""
    block = power_of_2(half)
    groups = -(-max(queries, keys) * block // (8192 if many else 512))
    q, k = (power_of_2(-(-max(heads, 1) // groups)) for heads in (queries, keys))
    return HeadTile(q, k, groups, min(max(q * block // (512 if many else 64), 1), 8))


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

    cos and sin ``[max_position, R / 2]``, in any floating dtype; position_ids ``[T]``. With ``inplace`` query and
    key are overwritten and returned, whatever their strides, unless heads share memory; else the results are new and
    contiguous. A position beyond the tables is not looked for: that would stop the host.

    ValueError for shapes that do not fit, TypeError for integers.
    """
    tokens, queries, width = query.shape
    q, k, c, s, at = query.data_ptr(), None, cos.data_ptr(), sin.data_ptr(), position_ids.data_ptr()
    called: Hashable = (
        *(queries, width, query.stride(), query.dtype, query.get_device(), rotary_interleaved, tokens >= MANY),
        *(cos.shape, cos.stride(), cos.dtype, cos.get_device()),
        *(sin.shape, sin.stride(), sin.dtype, sin.get_device()),
        *(position_ids.numel() == tokens, position_ids.stride(), position_ids.dtype, position_ids.get_device()),
    )
    aligned = (q | c | s | at) % VECTOR == 0
    if key is not None:
        k, (k_tokens, keys, k_width) = key.data_ptr(), key.shape
        called = called, k_tokens == tokens, keys, k_width, key.stride(), key.dtype, key.get_device()
        aligned = aligned and k % VECTOR == 0
    plan = _known.get(called) if aligned and inplace else None
    if plan is None or tokens > plan.most:
        return _first(called, (query, key), (cos, sin, position_ids), rotary_interleaved, inplace)
    relaunch, groups, _ = plan
    relaunch(tokens, groups, q, k, q, k, c, s, at)
    return query, key


Heads = tuple[torch.Tensor, torch.Tensor | None]
Tables = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _first(called: Hashable, given: Heads, tables: Tables, interleaved: bool, inplace: bool) -> Heads:
    """The rotation of heads that are new. Remembers how it was launched if it was in place."""
    query, key = given
    for heads in (query,) if key is None else (query, key):
        _check(heads, *tables)
    rotated = _target(query, inplace), None if key is None else _target(key, inplace)
    if query.numel() or (key is not None and key.numel()):
        plan = _launch(rotated, given, tables, interleaved)
        if plan is not None and rotated[0] is query and rotated[1] is key:
            _known[called] = plan
    return rotated


def _check(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor) -> None:
    require_floats(x)
    tokens, _, width = x.shape
    if not 2 * cos.shape[-1] == 2 * sin.shape[-1] == width or positions.shape != (tokens,):
        shapes = [tuple(tensor.shape) for tensor in (x, cos, sin, positions)]
        msg = "heads, cos, sin and positions of shapes {}, {}, {} and {}".format(*shapes)
        raise ValueError(msg)


def _target(x: torch.Tensor, inplace: bool) -> torch.Tensor:
    if inplace and _are_apart(x):  # heads that share memory cannot be overwritten
        return x
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _are_apart(x: torch.Tensor) -> bool:
    """Does each element have memory of its own? False, too, for some that have, at strides that nobody uses."""
    extent = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride < extent:
            return False
        extent += stride * (size - 1)
    return True


def _launch(rotated: Heads, given: Heads, tables: Tables, interleaved: bool) -> Plan | None:
    query, key = given
    tokens, queries, width = query.shape
    half = width // 2
    keys = 0 if key is None else key.shape[1]
    q_tile, k_tile, groups, warps = config(queries, keys, half, tokens >= MANY)
    tensors = (*rotated, *given, *tables)
    strides = [None if tensor is None else tensor.stride() for tensor in tensors]
    constants = (*strides, interleaved, queries, keys, half, power_of_2(half), q_tile, k_tile)
    relaunch = _rotate((tokens, groups), tensors, (), constants, warps)
    return None if relaunch is None else Plan(relaunch, groups, tokens)


@device_function
def _load(
    heads: tl.tensor,
    kept: tl.tensor,
    COL: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> tl.tensor:
    """The first of each pair that is rotated together, and the second, in fp32: ``[heads, BLOCK]`` each."""
    if INTERLEAVED:
        col = tl.arange(0, 2 * BLOCK)[None, :].to(tl.int64)
        pairs = tl.load(heads + col * COL, kept & (col < 2 * HALF), 0.0).to(tl.float32)
        first, second = tl.split(tl.reshape(pairs, [pairs.shape[0], BLOCK, 2]))
    else:
        col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
        first = tl.load(heads + col * COL, kept & (col < HALF), 0.0).to(tl.float32)
        second = tl.load(heads + (col + HALF) * COL, kept & (col < HALF), 0.0).to(tl.float32)
    return first, second


@device_function
def _store(
    heads: tl.tensor,
    kept: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    COL: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> None:
    first, second = first.to(heads.dtype.element_ty), second.to(heads.dtype.element_ty)
    if INTERLEAVED:
        col = tl.arange(0, 2 * BLOCK)[None, :].to(tl.int64)
        tl.store(heads + col * COL, tl.interleave(first, second), kept & (col < 2 * HALF))
    else:
        col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
        tl.store(heads + col * COL, first, kept & (col < HALF))
        tl.store(heads + (col + HALF) * COL, second, kept & (col < HALF))


@Kernel
def _rotate(  # noqa: PLR0913, PLR0917 - a kernel has no other way to be given them
    rotated_query: tl.tensor,
    rotated_key: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    positions: tl.tensor,
    RQ: tl.constexpr,
    RK: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    COS: tl.constexpr,
    SIN: tl.constexpr,
    POSITIONS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    Q_TILE: tl.constexpr,
    K_TILE: tl.constexpr,
) -> None:
    # In place: every element is read by one thread, and what is computed of it there overwrites it. No race.
    token = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1).to(tl.int64)
    position = tl.load(positions + token * POSITIONS[0]).to(tl.int64)
    col = tl.arange(0, BLOCK)[None, :]
    c = tl.load(cos + position * COS[0] + col * COS[1], col < HALF, 0.0).to(tl.float32)
    s = tl.load(sin + position * SIN[0] + col * SIN[1], col < HALF, 0.0).to(tl.float32)
    head = (group * Q_TILE + tl.arange(0, Q_TILE))[:, None]
    kept = head < QUERIES
    first, second = _load(query + token * Q[0] + head * Q[1], kept, Q[2], HALF, BLOCK, INTERLEAVED)
    if key is not None:
        k_head = (group * K_TILE + tl.arange(0, K_TILE))[:, None]
        k_kept = k_head < KEYS
        k1, k2 = _load(key + token * K[0] + k_head * K[1], k_kept, K[2], HALF, BLOCK, INTERLEAVED)
        rotated = rotated_key + token * RK[0] + k_head * RK[1]
        _store(rotated, k_kept, k1 * c - k2 * s, k2 * c + k1 * s, RK[2], HALF, BLOCK, INTERLEAVED)
    rotated = rotated_query + token * RQ[0] + head * RQ[1]
    _store(rotated, kept, first * c - second * s, second * c + first * s, RQ[2], HALF, BLOCK, INTERLEAVED)
