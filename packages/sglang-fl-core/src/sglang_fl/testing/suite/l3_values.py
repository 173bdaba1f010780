"""L3: an op's values are those of float64, to the tolerance of its contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sglang_fl.testing.calls.space import HALVES, LARGE
from sglang_fl.testing.checks import check_values
from sglang_fl.testing.under_test import OpUnderTest


@pytest.mark.L3
def test_values_are_those_of_float64(op: OpUnderTest, dtype: torch.dtype) -> None:
    """Ordinary calls: any number of rows, even and odd widths, numbers of several sizes."""
    op.for_all(replace(op.space, dtypes=(dtype,)), check_values(op))


@pytest.mark.L3
def test_large_magnitudes_do_not_overflow(op: OpUnderTest) -> None:
    """3e4 is a number in float16, and its square is not: sums of squares need float32."""
    halves = tuple(dtype for dtype in op.dtypes if dtype in HALVES)
    if not halves:
        pytest.skip("both float16 and bfloat16 are closed, and float32 holds the squares")
    do = "compute in float32, and round once"
    op.for_all(replace(op.space, dtypes=halves, magnitudes=(LARGE,)), check_values(op, do))


@pytest.mark.L3
def test_epsilon_is_added_to_the_mean_square(norm: OpUnderTest) -> None:
    """Under the root, and the layer's own: rows so small that epsilon outweighs them, down to zeros."""
    space = replace(norm.space, magnitudes=(1e-3, 3e-4, 0.0), epsilons=(1e-6, 1e-5, 1e-3))
    norm.for_all(space, check_values(norm, "divide by sqrt(mean square + obj.variance_epsilon)"))


@pytest.mark.L3
def test_float32_weights_serve_half_inputs(norm: OpUnderTest) -> None:
    """The result has the dtype of x, whatever that of the weights is."""
    halves = tuple(dtype for dtype in norm.dtypes if dtype in HALVES)
    if not halves:
        pytest.skip("both float16 and bfloat16 are closed")
    do = "read the weights in their own dtype, and round the result to that of x"
    norm.for_all(replace(norm.space, dtypes=halves, float32_weights=True), check_values(norm, do))
