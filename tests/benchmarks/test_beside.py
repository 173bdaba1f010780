from __future__ import annotations

from collections.abc import Callable
from math import inf
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


def on_another_device(x: torch.Tensor) -> torch.Tensor:
    return torch.abs(x).to("meta")


class Incomparable(torch.Tensor):
    """Raises whatever it is asked but for its shape, dtype and device."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "__get__":
            return super().__torch_function__(func, types, args, kwargs or {})
        raise NotImplementedError


def refusing(*values: Any) -> None:
    raise NotImplementedError


FAULTS = [
    ("mul.Tensor", without_broadcast, lambda x: x[:, :1] * x[:1], "shape"),
    ("mul.Tensor", without_broadcast, lambda x: x.t() * x.t(), "values"),
    ("fill_.Scalar", past_the_strides, lambda x: x[:, ::2].fill_(3.0), "written"),
    ("sqrt", of_another_dtype, lambda x: x.sqrt(), "dtype"),
    ("abs", refusing, lambda x: x.abs(), "raised"),
    ("abs", on_another_device, lambda x: x.abs(), "device"),
    ("abs", lambda x: x.abs().as_subclass(Incomparable), lambda x: x.abs(), "not_compared"),
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


@pytest.mark.parametrize("read", [torch.Tensor.conj, lambda x: x.conj().imag])
def test_a_function_is_given_what_is_conjugate_or_negative_only_when_it_is_read(
    read: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = read(torch.complex(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])))
    given: list[torch.Tensor] = []

    def clone(x: torch.Tensor, **rest: Any) -> torch.Tensor:
        given.append(x)
        return x.clone()

    beside = Beside({"clone": clone}, "cpu")
    with torch.no_grad(), beside:
        x.clone()
    assert torch.equal(given[0], x)
    assert beside.findings == {}


def test_the_call_itself_stays_pytorchs() -> None:
    x = torch.arange(1.0, 13.0).view(3, 4)
    with torch.no_grad(), Beside({"fill_.Scalar": past_the_strides}, "cpu"):
        x[:, ::2].fill_(0.0)
    assert x.tolist() == [[0, 2, 0, 4], [0, 6, 0, 8], [0, 10, 0, 12]]


def test_a_random_op_may_give_other_numbers() -> None:
    assert seen("normal_", lambda x, *rest: x.zero_(), lambda x: x.normal_()) == []


class Device:
    """As ``torch.cuda``: after a wrong call every synchronization raises. It is made after ``right`` of them."""

    def __init__(self, right: float) -> None:
        self.right = right

    def fail(self, x: torch.Tensor) -> torch.Tensor:
        self.right = 0
        return x.abs()

    def synchronize(self) -> None:
        self.right -= 1
        if self.right < 0:
            msg = "device-side assert triggered"
            raise RuntimeError(msg)


def test_a_function_that_ends_the_use_of_the_device_raised_and_nothing_is_called_beside_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(right=inf)
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    beside, x = Beside({"abs": device.fail, "sqrt": torch.sqrt}, "cpu"), torch.ones(2)
    with torch.no_grad(), beside:
        x.abs()
        assert beside.is_broken
        x.sqrt()
    assert list(beside.findings) == [("abs", "raised")]
    assert beside.calls == {"abs": 1}


def test_a_call_of_pytorchs_that_ends_the_use_of_the_device_is_not_the_functions_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda _: Device(right=1))  # until PyTorch's own abs
    given: list[torch.Tensor] = []
    beside = Beside({"abs": given.append}, "cpu")
    with torch.no_grad(), beside:
        torch.ones(2).abs()
    assert (beside.calls, beside.is_broken) == ({"abs": 1}, True)
    assert (beside.findings, given) == ({}, [])
