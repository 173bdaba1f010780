from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.beside import Beside


def without_broadcast(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.mul(*(factor.as_strided((x.numel(),), (1,)) for factor in (x, y))).view(x.shape)


def past_the_strides(x: torch.Tensor, value: float) -> torch.Tensor:
    x.as_strided((x.numel(),), (1,)).copy_(torch.full((x.numel(),), value))
    return x.copy_(torch.full(x.shape, value))


def of_another_dtype(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    return x.sqrt().double()


def refusing(*values: Any) -> None:
    raise NotImplementedError


FAULTS = [
    ("mul.Tensor", without_broadcast, lambda x: x[:, :1] * x[:1], "shape"),
    ("mul.Tensor", without_broadcast, lambda x: x.t() * x.t(), "values"),
    ("fill_.Scalar", past_the_strides, lambda x: x[:, ::2].fill_(3.0), "written"),
    ("sqrt", of_another_dtype, lambda x: x.sqrt(), "dtype"),
    ("abs", refusing, lambda x: x.abs(), "raised"),
]
RIGHT = {"mul.Tensor": torch.mul, "fill_.Scalar": torch.Tensor.fill_, "sqrt": torch.sqrt, "abs": torch.abs}


def seen(overload: str, function: Callable[..., Any], call: Callable[[torch.Tensor], Any]) -> list[tuple[str, str]]:
    beside = Beside({overload: function}, "cpu")
    with torch.no_grad(), beside:
        call(torch.arange(1.0, 13.0).view(3, 4))
    assert beside.calls[overload] == 1
    return list(beside.findings)


@pytest.mark.parametrize(("overload", "function", "call", "what"), FAULTS)
def test_what_differs_from_pytorch_is_found(
    overload: str, function: Callable[..., Any], call: Callable[[torch.Tensor], Any], what: str
) -> None:
    assert seen(overload, function, call) == [(overload, what)]


@pytest.mark.parametrize(("overload", "function", "call", "what"), FAULTS)
def test_what_does_not_differ_is_not(
    overload: str, function: Callable[..., Any], call: Callable[[torch.Tensor], Any], what: str
) -> None:
    assert seen(overload, RIGHT[overload], call) == []


def test_the_call_itself_stays_pytorchs() -> None:
    x = torch.arange(1.0, 13.0).view(3, 4)
    with torch.no_grad(), Beside({"fill_.Scalar": past_the_strides}, "cpu"):
        x[:, ::2].fill_(0.0)
    assert x.tolist() == [[0, 2, 0, 4], [0, 6, 0, 8], [0, 10, 0, 12]]


def test_a_random_op_may_give_other_numbers() -> None:
    assert seen("normal_", lambda x, *rest: x.zero_(), lambda x: x.normal_()) == []
