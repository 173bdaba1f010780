from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sglang_fl.errors import DispatchError
from sglang_fl.policy import SelectionPolicy

from .samples import Spy, broken, candidate, dispatcher, reference, rows, silu_and_mul, vandal

ACT = "silu_and_mul"


def test_a_failure_is_logged_in_one_line_that_names_everything_and_only_once(caplog: pytest.LogCaptureFixture) -> None:
    made = dispatcher(candidate(fn=vandal()), reference())
    for _ in range(3):
        made.call(ACT, None, rows(3, 8))
        with SelectionPolicy(prefer="vendor"):  # the same implementation in another chain
            made.call(ACT, None, rows(3, 8))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in (ACT, "vendor.acme", "acme-chip", "torch.float32", "cpu", "RuntimeError: illegal instruction"):
        assert part in record.getMessage()


def test_a_quarantine_keeps_its_reason_for_whoever_asks() -> None:
    made = dispatcher(candidate(fn=broken), reference())
    made.call(ACT, None, rows(3, 8))
    (link,) = made.quarantined
    assert link.key == (ACT, "vendor.acme", torch.float32, torch.device("cpu"))
    assert link.quarantine == "RuntimeError: no kernel image"


def test_a_failed_kernel_is_not_called_again() -> None:
    kernel = Spy(broken)
    made = dispatcher(candidate(fn=kernel), reference())
    for _ in range(3):
        made.call(ACT, None, rows(3, 8))
    assert kernel.calls == 1


WRONG: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "shape (3, 8)": lambda obj, x: x * 2,
    "dtype torch.float64": lambda obj, x: silu_and_mul(obj, x).double(),
    "on meta": lambda obj, x: silu_and_mul(obj, x).to("meta"),
    "is NoneType": lambda obj, x: None,
    "is tuple": lambda obj, x: (silu_and_mul(obj, x), x),
    "dtype float32, not torch.float32": lambda obj, x: silu_and_mul(obj, x).numpy(),
}


@pytest.mark.parametrize("reason", WRONG)
def test_an_illegal_result_is_not_given_to_the_caller(reason: str) -> None:
    made = dispatcher(candidate(fn=WRONG[reason]), reference())
    x = rows(3, 8)
    assert torch.equal(made.call(ACT, None, x), silu_and_mul(None, x))
    (link,) = made.quarantined
    assert "ContractError" in str(link.quarantine) and reason in str(link.quarantine)


def test_a_result_that_cannot_be_looked_at_is_illegal() -> None:
    class Hostile:
        @property
        def shape(self) -> None:
            raise RuntimeError("freed")

    made = dispatcher(candidate(fn=lambda obj, x: Hostile()), reference())
    assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)


def test_an_implementation_proves_itself_anew_for_each_dtype() -> None:
    def only_floats(obj: Any, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:
            return silu_and_mul(obj, x)
        return vandal()(obj, x)

    made = dispatcher(candidate(fn=only_floats), reference())
    x = rows(3, 8)
    made.call(ACT, None, x)
    half = x.half()
    assert torch.equal(made.call(ACT, None, half), reference().impl.load()(None, x.half()))
    assert [link.key.dtype for link in made.quarantined] == [torch.float16]
    assert made.chain(ACT, x).function() is only_floats


class Unlucky:
    """A kernel that works at first."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, obj: Any, x: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        return silu_and_mul(obj, x)


@pytest.mark.parametrize("accepts", [None, lambda obj, x: True])
def test_what_a_proven_implementation_raises_is_the_callers_unchanged(accepts: Any) -> None:
    kernel = Unlucky()
    made = dispatcher(candidate(fn=kernel, accepts=accepts), reference())
    made.call(ACT, None, rows(3, 8))
    kernel.error = ZeroDivisionError("later")
    with pytest.raises(ZeroDivisionError) as caught:
        made.call(ACT, None, rows(3, 8))
    assert caught.value is kernel.error
    assert made.quarantined == ()


def test_out_of_memory_says_nothing_about_the_implementation_and_leaves_the_input_as_it_was() -> None:
    x = rows(3, 8)
    given = x.clone()
    made = dispatcher(candidate(fn=vandal(torch.OutOfMemoryError("2 GiB"))), reference())
    with pytest.raises(torch.OutOfMemoryError):
        made.call(ACT, None, x)
    assert made.quarantined == ()
    assert torch.equal(x, given)


def test_an_interrupt_is_no_failure() -> None:
    made = dispatcher(candidate(fn=vandal(KeyboardInterrupt())), reference())
    with pytest.raises(KeyboardInterrupt):
        made.call(ACT, None, rows(3, 8))
    assert made.quarantined == ()


def test_strict_has_no_fallback() -> None:
    kernel = Spy(reference().impl.load())
    made = dispatcher(candidate(fn=broken), candidate("other", fn=kernel, priority=1), strict=True)
    for _ in range(2):
        with pytest.raises(
            DispatchError, match=r"silu_and_mul \(strict: no fallback\).*vendor.acme: .*no kernel image"
        ):
            made.call(ACT, None, rows(3, 8))
    assert kernel.calls == 0


def test_strict_makes_a_refusal_an_error() -> None:
    made = dispatcher(candidate(accepts=lambda obj, x: "too short"), reference(), strict=True)
    with pytest.raises(DispatchError, match=r"vendor.acme: too short"):
        made.call(ACT, None, rows(3, 8))


def test_where_every_implementation_fails_the_error_has_every_reason_and_the_call_is_at_fault() -> None:
    made = dispatcher(candidate(), reference())
    with pytest.raises(DispatchError) as caught:
        made.call(ACT, None, torch.ones(3, 7))  # no op takes an odd width
    assert "vendor.acme: " in str(caught.value) and "reference.torch: " in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)
    assert made.quarantined == ()
    assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
    assert made.chain(ACT, rows(3, 8)).function() is silu_and_mul


def test_a_call_that_the_op_does_not_have_is_a_type_error_and_no_failure() -> None:
    made = dispatcher(candidate(), reference())
    with pytest.raises(TypeError):
        made.call(ACT, None, rows(3, 8), scale=2)
    assert made.quarantined == ()


def test_an_implementation_that_cannot_be_imported_is_quarantined_and_the_next_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = dispatcher(candidate(fn="a_module_that_is_not:kernel"), reference())
    for _ in range(2):
        assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
    assert "a_module_that_is_not" in str(made.quarantined[0].quarantine)
    assert len(caplog.records) == 1


def test_a_module_that_exits_when_it_is_imported_takes_nothing_down(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting_kernels.py").write_text("raise SystemExit('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    made = dispatcher(candidate(fn="exiting_kernels:kernel"), reference())
    assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
    assert "no licence" in str(made.quarantined[0].quarantine)


def test_an_implementation_is_imported_only_when_its_turn_comes() -> None:
    made = dispatcher(candidate(), candidate("unwanted", fn="a_module_that_is_not:kernel", priority=1))
    made.call(ACT, None, rows(3, 8))
    assert made.quarantined == ()


ANSWERS: list[tuple[Any, str | None]] = [
    (True, None),
    (np.True_, None),
    (torch.tensor(True), None),
    (False, "no reason given"),
    (None, "no reason given"),
    ("", "no reason given"),
    (np.False_, "no reason given"),
    ("x is not aligned", "x is not aligned"),
]


@pytest.mark.parametrize(("answer", "reason"), ANSWERS)
def test_a_refused_call_goes_to_the_next_and_an_accepted_one_does_not(answer: Any, reason: str | None) -> None:
    kernel = Spy(silu_and_mul)
    made = dispatcher(candidate(fn=kernel, accepts=lambda obj, x: answer), reference())
    for _ in range(3):
        made.call(ACT, None, rows(3, 8))
    assert kernel.calls == (3 if reason is None else 0)
    assert made.quarantined == ()


@pytest.mark.parametrize(("answer", "reason"), [(a, r) for a, r in ANSWERS if r is not None])
def test_where_every_implementation_refuses_the_error_has_every_reason(answer: Any, reason: str) -> None:
    refuses = [candidate(name, accepts=lambda obj, x: answer) for name in ("one", "two")]
    with pytest.raises(DispatchError, match=rf"a call of silu_and_mul; found .*one: {reason}; two: {reason}"):
        dispatcher(*refuses).call(ACT, None, rows(3, 8))


def test_accepts_is_asked_before_each_call_with_its_arguments_and_never_after() -> None:
    events: list[str] = []

    def accepts(obj: Any, x: torch.Tensor, residual: Any = None) -> bool:
        events.append(f"asked {obj.name} {tuple(x.shape)} {residual is not None}")
        return True

    def kernel(obj: Any, x: torch.Tensor, residual: Any = None) -> Any:
        events.append("called")
        return x if residual is None else (x, residual)

    layer = SimpleNamespace(name="norm")
    made = dispatcher(candidate(op="rms_norm", fn=kernel, accepts=accepts), reference("rms_norm"))
    x = rows(3, 4)
    made.call("rms_norm", layer, x)
    made.call("rms_norm", layer, x, residual=x)
    assert events == ["asked norm (3, 4) False", "called", "asked norm (3, 4) True", "called"]


def test_accepts_is_asked_once_a_call_even_where_none_is_left() -> None:
    accepts = Spy(lambda obj, x: "never")
    made = dispatcher(candidate(accepts=accepts))
    for calls in (1, 2):
        with pytest.raises(DispatchError):
            made.call(ACT, None, rows(3, 8))
        assert accepts.calls == calls


def test_accepts_may_be_named_by_its_module() -> None:
    made = dispatcher(candidate(accepts="tests.core.test_probation:few_rows"), reference())
    made.call(ACT, None, rows(3, 8))
    made.call(ACT, None, rows(4, 8))
    assert made.chain(ACT, rows(3, 8)).function() is not silu_and_mul


def few_rows(obj: Any, x: torch.Tensor) -> bool:
    return x.shape[0] < 4


def test_an_accepts_that_raises_is_a_failure_of_an_implementation_on_probation() -> None:
    kernel = Spy(silu_and_mul)
    made = dispatcher(candidate(fn=kernel, accepts=lambda obj, x: obj.nothing), reference())
    for _ in range(2):
        assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
    assert kernel.calls == 0
    assert "AttributeError" in str(made.quarantined[0].quarantine)


def test_an_accepts_that_is_no_longer_on_probation_raises_to_the_caller() -> None:
    made = dispatcher(candidate(accepts=lambda obj, x: x.shape[0] < 4 or 1 / 0), reference())
    made.call(ACT, None, rows(3, 8))
    with pytest.raises(ZeroDivisionError):
        made.call(ACT, None, rows(4, 8))
    assert made.quarantined == ()


def test_what_is_refused_is_not_copied() -> None:
    class Counting(torch.Tensor):
        copies = 0

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Counting.copies += func is torch.Tensor.clone
            return super().__torch_function__(func, types, args, kwargs or {})

    made = dispatcher(candidate(accepts=lambda obj, x: False), reference())
    made.call(ACT, None, rows(3, 8))  # the reference has proven itself
    made.call(ACT, None, rows(3, 8).as_subclass(Counting))
    assert Counting.copies == 0


def test_a_quarantined_implementation_serves_in_no_other_chain() -> None:
    kernel = Spy(broken)
    made = dispatcher(candidate(fn=kernel), reference())
    made.call(ACT, None, rows(3, 8))
    with SelectionPolicy(strict=True), pytest.raises(DispatchError, match=r"vendor.acme: RuntimeError"):
        made.call(ACT, None, rows(3, 8))
    assert kernel.calls == 1


def test_many_threads_that_meet_a_broken_kernel_get_right_answers_and_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    barrier = threading.Barrier(8)
    together = threading.Barrier(8)

    def kernel(obj: Any, x: torch.Tensor) -> Any:
        together.wait(30)  # all of them are inside
        return vandal()(obj, x)

    made = dispatcher(candidate(fn=kernel), reference())
    inputs = [torch.full((2, 8), float(i)) for i in range(8)]

    def call(x: torch.Tensor) -> torch.Tensor:
        barrier.wait(30)
        return made.call(ACT, None, x)  # type: ignore[no-any-return]

    wanted = [silu_and_mul(None, x.clone()) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(call, inputs))
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))
    assert len(caplog.records) == 1
    assert len(made.quarantined) == 1


def test_a_kernel_may_call_its_own_op(caplog: pytest.LogCaptureFixture) -> None:
    def recursive(obj: Any, x: torch.Tensor) -> Any:
        with SelectionPolicy(prefer="reference"):
            return made.call(ACT, obj, x)

    made = dispatcher(candidate(fn=recursive), reference())
    assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
    assert caplog.records == []
