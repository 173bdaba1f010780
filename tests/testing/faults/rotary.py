"""Faults of the rotary embedding."""

from __future__ import annotations

import torch

from .fault import fault, rotate


@fault("rotary_embedding", "test_halves_or_neighbours_are_paired", True)
def pairs_halves_whatever_is_asked(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(None if x is None else rotate(x, cos, sin, position_ids, False) for x in (query, key))


@fault("rotary_embedding", "test_halves_or_neighbours_are_paired", False)
def has_the_two_styles_swapped(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(None if x is None else rotate(x, cos, sin, position_ids, not rotary_interleaved) for x in (query, key))


@fault("rotary_embedding", "test_a_part_of_each_head_turns")
def takes_heads_for_as_wide_as_their_part(
    obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True
):  # type: ignore[no-untyped-def]
    packed = [
        None if x is None else x.as_strided(x.shape, torch.empty(x.shape).stride(), x.storage_offset())
        for x in (query, key)
    ]
    return tuple(None if x is None else rotate(x, cos, sin, position_ids, rotary_interleaved) for x in packed)


@fault("rotary_embedding", "test_positions_far_out")
def counts_positions_in_16_bits(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    near = position_ids & 0xFFFF
    return tuple(None if x is None else rotate(x, cos, sin, near, rotary_interleaved) for x in (query, key))


@fault("rotary_embedding", "test_no_key")
def needs_a_key(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(rotate(x, cos, sin, position_ids, rotary_interleaved) for x in (query, key))


@fault("rotary_embedding", "test_float32_tables_turn_half_inputs")
def rounds_the_tables_first(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    return tuple(None if x is None else rotate(x, cos, sin, position_ids, rotary_interleaved) for x in (query, key))


@fault("rotary_embedding", "test_out_of_place_rotary_leaves_its_inputs", mutates=("query", "key"))
def turns_in_place_whatever_is_asked(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(
        None if x is None else x.copy_(rotate(x, cos, sin, position_ids, rotary_interleaved)) for x in (query, key)
    )


@fault("rotary_embedding", "test_results_of_earlier_calls_stay")
def keeps_the_rows_of_its_tables(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    rows = vars(obj).setdefault("rows", (cos[position_ids], sin[position_ids]))
    each = torch.arange(len(position_ids), device=position_ids.device)
    return tuple(None if x is None else rotate(x, *rows, each, rotary_interleaved) for x in (query, key))
