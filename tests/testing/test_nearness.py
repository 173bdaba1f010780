from __future__ import annotations

import math

import pytest
import torch

from sglang_fl.ops import TOLERANCE
from sglang_fl.testing.exact import Exact
from sglang_fl.testing.nearness import distance

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def one(value: float, terms: float = 0.0) -> Exact:
    return Exact(torch.tensor([value]).double(), torch.tensor([terms]).double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [3.14159, -0.01, 1e-5, 0.0])
def test_rounding_once_is_near(dtype: torch.dtype, value: float) -> None:
    assert distance(torch.tensor([value], dtype=torch.float64).to(dtype), one(value), TOLERANCE) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_twice_the_tolerance_is_far(dtype: torch.dtype) -> None:
    off = 1 + 2 * TOLERANCE[str(dtype).removeprefix("torch.")]
    assert distance(torch.tensor([3.14159 * off]).to(dtype), one(3.14159), TOLERANCE) is not None


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_far(dtype: torch.dtype) -> None:
    assert distance(torch.tensor([math.nan]).to(dtype), one(0.0, 1e9), TOLERANCE) is not None


def test_where_terms_cancel_float32_arithmetic_is_near_and_half_arithmetic_is_not() -> None:
    exact = one(1e-6, terms=100.0)
    assert distance(torch.tensor([1e-6 + 100 * 2**-23]), exact, TOLERANCE) is None
    assert distance(torch.tensor([1e-6 + 100 * 2**-11]), exact, TOLERANCE) is not None


@pytest.mark.parametrize("got", [math.inf, 65504.0])
def test_beyond_the_largest_number_the_largest_or_infinity_is_near(got: float) -> None:
    assert distance(torch.tensor([got]).half(), one(1e6), TOLERANCE) is None
    assert distance(torch.tensor([got]).half(), one(-1e6), TOLERANCE) is not None


def test_infinity_is_far_from_what_can_be_held() -> None:
    assert distance(torch.tensor([math.inf]).half(), one(6e4), TOLERANCE) is not None


def test_nothing_is_near() -> None:
    assert distance(torch.empty(0, 4), Exact(*[torch.empty(0, 4).double()] * 2), TOLERANCE) is None


def test_what_is_far_is_told_with_its_place() -> None:
    got, exact = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    told = distance(got, Exact(exact, torch.zeros_like(exact)), TOLERANCE)
    assert told is not None
    assert told.startswith("element [1, 1] is 5, exact is 4")
    assert told.endswith("1 of 4 elements are off by more")
