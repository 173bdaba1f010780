"""What the ranks add and move takes all that a dtype holds, and the sum that is wanted is the exact one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.testing.collectives.cases import End

from .dtypes import DTYPES, FLOATS, INTEGERS

COUNT = 65537


def end() -> End:
    group: Any = SimpleNamespace(rank=0, size=2, device=torch.device("cpu"))
    return End(made=None, group=group)  # type: ignore[arg-type]


def exactly(tensor: torch.Tensor) -> list[Any]:
    """As Python's own numbers."""
    values: list[Any] = tensor.numpy().tolist()
    return values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_rank_has_numbers_of_its_own_and_has_them_again(dtype: torch.dtype) -> None:
    first, again, other = (end().numbers(rank, COUNT, dtype).view(torch.uint8) for rank in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_take_every_bit_and_their_sum_does_not_overflow(dtype: torch.dtype) -> None:
    parts = [exactly(end().part(rank, COUNT, dtype)) for rank in range(2)]
    total = [sum(pair) for pair in zip(*parts, strict=True)]
    assert exactly(end().total(COUNT, dtype)) == total
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    assert max(total) > most - (most - least) / 20
    assert min(total) < least + (most - least) / 20
    assert {one & 1 for part in parts for one in part} == {0, 1}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_narrower_float_would_lose_bits_of_what_is_added(dtype: torch.dtype) -> None:
    part = end().part(0, COUNT, dtype).to(torch.float64)
    mantissa, _ = torch.frexp(part)
    last_bit = mantissa / torch.finfo(dtype).eps % 1
    assert (last_bit != 0).float().mean() > 0.4


@pytest.mark.parametrize("dtype", [dtype for dtype in FLOATS if dtype.itemsize > 1], ids=str)
def test_a_sum_of_floats_is_rounded_once(dtype: torch.dtype) -> None:
    first, second = (end().part(rank, COUNT, dtype) for rank in range(2))
    assert torch.equal(end().total(COUNT, dtype), first + second)


def test_a_sum_of_booleans_is_whether_any_is_true() -> None:
    first, second = (end().part(rank, COUNT, torch.bool) for rank in range(2))
    assert torch.equal(end().total(COUNT, torch.bool), first | second)
