"""L3: what is the rotary embedding's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from sglang_fl.testing.calls.space import HALVES
from sglang_fl.testing.checks import check_values, check_what_stays
from sglang_fl.testing.under_test import OpUnderTest


@pytest.mark.L3
@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "neighbours"])
def test_halves_or_neighbours_are_paired(rotary: OpUnderTest, interleaved: bool) -> None:
    """NeoX pairs the halves of a head, GPT-J its neighbours."""
    do = "pair halves (i, i + R/2), or with rotary_interleaved neighbours (2i, 2i + 1)"
    rotary.for_all(replace(rotary.space, interleaved=interleaved), check_values(rotary, do))


@pytest.mark.L3
def test_a_part_of_each_head_turns(rotary: OpUnderTest) -> None:
    """query and key are the first part of wider heads; the rest of each head is not theirs."""
    do = "use the strides of query and key; R is their last dimension, obj.head_size the whole head"
    rotary.for_all(replace(rotary.space, partial=True), check_values(rotary, do))


@pytest.mark.L3
def test_positions_far_out(rotary: OpUnderTest) -> None:
    """As far as a context of 128 K tokens."""
    widths = st.sampled_from([8, 15])
    space = replace(rotary.space, max_position=131072, widths=widths)
    rotary.for_all(space, check_values(rotary, "index whole tables, in 64-bit offsets"))


@pytest.mark.L3
def test_no_key(rotary: OpUnderTest) -> None:
    """key=None: the answer is (query, None)."""
    rotary.for_all(replace(rotary.space, key=False), check_values(rotary, "return (query, None) when key is None"))


@pytest.mark.L3
def test_float32_tables_turn_half_inputs(rotary: OpUnderTest) -> None:
    """cos and sin are in float32 where SGLang keeps them so; rounding them first costs precision far out."""
    halves = tuple(dtype for dtype in rotary.dtypes if dtype in HALVES)
    if not halves:
        pytest.skip("both float16 and bfloat16 are closed")
    do = "compute in float32 with the tables as they are"
    rotary.for_all(replace(rotary.space, dtypes=halves, float32_tables=True), check_values(rotary, do))


@pytest.mark.L3
def test_out_of_place_rotary_leaves_its_inputs(rotary: OpUnderTest) -> None:
    """inplace=False: query and key stay."""
    do = "write to new tensors when inplace is False"
    rotary.for_all(replace(rotary.space, inplace=False), check_what_stays(rotary, do))
