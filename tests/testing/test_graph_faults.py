"""L6 catches what cannot be traced or captured and says that it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sglang_fl.records import BackendImplKind, OpImpl
from sglang_fl.testing import suite
from sglang_fl.testing.under_test import OpUnderTest

from .subjects import platform, subject


def silu(obj: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(x.dtype)


def branches_on_a_value(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(obj, x) if x.abs().sum().item() > -1 else x


def is_another_function_when_compiled(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(obj, x) * 2 if torch.compiler.is_compiling() else silu(obj, x)


def keeps_the_first_numbers(obj: Any, x: torch.Tensor) -> torch.Tensor:
    if torch.cuda.is_current_stream_capturing():
        return keeps_the_first_numbers.answer  # type: ignore[attr-defined,no-any-return]
    keeps_the_first_numbers.answer = silu(obj, x)  # type: ignore[attr-defined]
    return silu(obj, x)


def under_test(fn: Callable[..., Any], device: str = "cpu", **record: Any) -> OpUnderTest:
    named = {"op": "silu_and_mul", "impl_id": "vendor.acme", "kind": BackendImplKind.VENDOR, "vendor": "acme"}
    return OpUnderTest(OpImpl(**named, fn=fn, **record), torch.device(device), shrink=False)


TRACED = "test_it_is_traced_into_one_graph"


@pytest.mark.parametrize("fn", [branches_on_a_value, is_another_function_when_compiled])
def test_what_is_not_traced_as_it_is_is_caught(fn: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"data-dependent|Unsupported|exact is|Tensor.item"):
        suite.test_it_is_traced_into_one_graph(subject(), under_test(fn))


def test_what_says_that_it_cannot_be_traced_is_wrapped() -> None:
    suite.test_it_is_traced_into_one_graph(subject(), under_test(branches_on_a_value, traceable=False))


def test_what_is_closed_is_skipped_with_its_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="compile is closed: no Dynamo there"):
        suite.test_it_is_traced_into_one_graph(subject(closed={"compile": "no Dynamo there"}), under_test(silu))


CUDA = platform(device_type="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("fn", [branches_on_a_value, keeps_the_first_numbers])
def test_what_is_not_captured_as_it_is_is_caught(fn: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"captur|exact is"):
        suite.test_a_captured_call_replays_on_new_numbers(subject(CUDA), under_test(fn, "cuda"))
    torch.cuda.synchronize()


@pytest.mark.gpu
def test_what_is_captured_as_it_is_passes() -> None:
    suite.test_a_captured_call_replays_on_new_numbers(subject(CUDA), under_test(silu, "cuda"))


@pytest.mark.gpu
def test_a_wait_for_the_device_is_caught_on_the_device() -> None:
    def waits(obj: Any, x: torch.Tensor) -> torch.Tensor:
        x.cpu()
        return silu(obj, x)

    with pytest.raises(Exception, match="synchronizing"):
        suite.test_the_host_never_waits_for_the_device(under_test(waits, "cuda"))
    suite.test_the_host_never_waits_for_the_device(under_test(silu, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("test", ["test_values_are_those_of_float64", "test_large_magnitudes_do_not_overflow"])
def test_torchs_own_silu_passes_on_a_gpu(test: str) -> None:
    parameters = [torch.bfloat16] if test.startswith("test_values") else []
    getattr(suite, test)(replace(under_test(silu, "cuda"), examples=50), *parameters)
