"""L3: what may be overwritten may, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.placed import STRIDED, Layout
from sglang_fl.testing.checks import check_neighbours, check_sharing, check_values, check_what_stays
from sglang_fl.testing.under_test import OpUnderTest
from sglang_fl.testing.unwritten import unwritten_is_nan


@pytest.mark.L3
def test_only_what_may_be_overwritten_is(op: OpUnderTest) -> None:
    """Of what the contract lets this very call overwrite, what the record declares in mutates; no weight, no table."""
    op.for_all(replace(op.space, layouts=tuple(Layout)), check_what_stays(op))


@pytest.mark.L3
def test_what_lies_beside_a_tensor_stays(op: OpUnderTest) -> None:
    """The rows that a view is a part of, and the memory before and behind it."""
    op.for_all(replace(op.space, layouts=tuple(Layout)), check_neighbours(op))


@pytest.mark.L3
def test_a_view_of_wider_heads_leaves_the_rest_of_them(rotary: OpUnderTest) -> None:
    """Partial rotation in place: what is behind the rotated part of each head stays."""
    rotary.for_all(replace(rotary.space, partial=True, inplace=True), check_neighbours(rotary))


@pytest.mark.L3
def test_results_share_no_memory_with_what_stays(op: OpUnderTest) -> None:
    """A result is new, or lies in an argument that may be overwritten."""
    op.for_all(op.space, check_sharing(op))


@pytest.mark.L3
def test_every_element_of_the_result_is_written(op: OpUnderTest) -> None:
    """Torch fills new tensors with NaN meanwhile."""
    space = replace(op.space, widths=st.sampled_from([1, 3, 16, 65, 128]))
    with unwritten_is_nan():
        if not torch.empty(3, device=op.device).isnan().all():
            pytest.skip(f"torch does not fill new tensors on {op.device.type}")
        op.for_all(space, check_values(op, "write every element of a result that torch.empty made"))


@pytest.mark.L3
def test_strided_results_in_place_are_right(op: OpUnderTest) -> None:
    """Where an argument may be overwritten, the answer is right even if that argument is a strided view."""
    if not op.impl.mutates:
        pytest.skip("the record declares mutates=(): it overwrites nothing")
    op.for_all(replace(op.space, layouts=STRIDED, inplace=True, residual=True), check_values(op))
