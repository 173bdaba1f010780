"""What differs is told for every dtype that tensors may have."""

from __future__ import annotations

import pytest
import torch

from sglang_fl.testing.collectives.difference import difference

from .dtypes import DTYPES


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_first_element_that_differs_is_named(dtype: torch.dtype) -> None:
    wanted = torch.zeros(7).to(dtype)
    got = wanted.clone()
    got[3], got[5] = 1, 1
    found = difference("the sum", got, wanted)
    assert found == f"the sum: element 3 is {got[3]}, not {wanted[3]}; 2 of 7 differ"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_equal_differs_nowhere(dtype: torch.dtype) -> None:
    wanted = torch.arange(7).to(dtype)
    assert difference("the sum", wanted.clone(), wanted) is None


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.is_floating_point or dtype.is_complex], ids=str)
def test_zeros_are_equal_whatever_their_sign(dtype: torch.dtype) -> None:
    assert difference("the sum", torch.tensor([-0.0]).to(dtype), torch.tensor([0.0]).to(dtype)) is None


def test_integers_differ_in_their_last_bit() -> None:
    wanted = torch.tensor([2**62])
    assert difference("the sum", wanted + 1, wanted) is not None
    assert difference("the sum", (wanted + 1).view(torch.uint64), wanted.view(torch.uint64)) is not None


def test_what_is_no_number_differs_from_all() -> None:
    assert difference("the sum", torch.tensor([torch.nan]), torch.tensor([0.0])) is not None
