"""L3: every legal shape and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from sglang_fl.testing.calls.placed import STRIDED
from sglang_fl.testing.checks import check_values
from sglang_fl.testing.under_test import OpUnderTest

_HUGE = (4096, 4097, 8192, 11008, 16385)
_MORE_THAN_A_GRID = 65537
"""Rows: CUDA's grids have 65535 blocks in y and in z."""


@pytest.mark.L3
def test_an_empty_input_gives_an_empty_result(op: OpUnderTest) -> None:
    """No row at all, in two and in three dimensions: ranks of a data-parallel group run empty."""
    do = "return at once, with a new empty result of the right shape, when x.numel() == 0"
    op.for_all(replace(op.space, leads=st.sampled_from([(0,), (0, 3), (3, 0)])), check_values(op, do))


@pytest.mark.L3
def test_a_single_row(op: OpUnderTest) -> None:
    """One token, as in the decoding of one request."""
    op.for_all(replace(op.space, leads=st.sampled_from([(1,), (1, 1), ()])), check_values(op))


@pytest.mark.L3
def test_three_dimensions(op: OpUnderTest) -> None:
    """All dimensions but the last count rows."""
    few = st.integers(2, 4)
    op.for_all(replace(op.space, leads=st.tuples(few, few)), check_values(op, "flatten all dimensions but the last"))


@pytest.mark.L3
def test_odd_widths(op: OpUnderTest) -> None:
    """Widths that are no multiple of a vector or a block, so that a row has a tail."""
    widths = st.integers(0, 80).map(lambda half: 2 * half + 1)
    op.for_all(replace(op.space, widths=widths), check_values(op, "mask the tail of a row"))


@pytest.mark.L3
def test_huge_widths(op: OpUnderTest) -> None:
    """Rows longer than a block; what is summed over a row needs several of them. Of a rotary call, many heads."""
    space = replace(op.space, leads=st.tuples(st.integers(1, 2)))
    if op.op == "rotary_embedding":
        space = replace(space, widths=st.sampled_from([128, 256]), max_heads=128, max_position=64)
    else:
        space = replace(space, widths=st.sampled_from(_HUGE))
    op.at_most(8).for_all(space, check_values(op, "loop over the blocks of a row"))


@pytest.mark.L3
def test_many_rows(op: OpUnderTest) -> None:
    """A prefill: more rows than a grid has blocks in one go."""
    space = replace(op.space, leads=st.tuples(st.integers(1025, 1100)), widths=st.sampled_from([8, 16]))
    op.at_most(3).for_all(space, check_values(op, "loop, or launch more blocks"))
    space = replace(op.space, leads=st.just((_MORE_THAN_A_GRID,)), widths=st.just(8), magnitudes=(1.0,))
    op.at_most(1).examine(space, check_values(op, "put the rows into the grid's x, or loop"))


@pytest.mark.L3
def test_strided_views(op: OpUnderTest) -> None:
    """A slice of wider rows, as a layer hands on a part of a projection; a transposed tensor; with NaN in between."""
    do = "use the strides of what is given, or copy what is not contiguous"
    op.for_all(replace(op.space, layouts=STRIDED), check_values(op, do))
