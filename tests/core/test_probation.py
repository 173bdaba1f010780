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

from sglang_fl import probation
from sglang_fl.dispatch import Dispatcher
from sglang_fl.errors import DispatchError
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate

from .samples import LAYER, Spy, broken, candidate, reference, silu_and_mul

ACT = "silu_and_mul"


def dispatcher(*candidates: Candidate, **policy: Any) -> Dispatcher:
    return Dispatcher(candidates, SelectionPolicy(**policy))


def vandal(error: BaseException | None = None) -> Callable[..., Any]:
    """A kernel that overwrites every tensor that it is given, and then raises."""

    def kernel(obj: Any, *tensors: Any, **kwargs: Any) -> Any:
        for tensor in (*tensors, *kwargs.values()):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                _memory(tensor).fill_(float("nan"))
        raise error or RuntimeError("illegal instruction")

    return kernel


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """What a kernel that forgets the strides writes to."""
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.detach().as_strided((span,), (1,))


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def wider(*shape: int) -> torch.Tensor:
    return rows(*shape[:-1], shape[-1] + 3)[..., 1 : 1 + shape[-1]]


def transposed(*shape: int) -> torch.Tensor:
    return rows(*shape[::-1]).permute(*reversed(range(len(shape))))


def repeated(*shape: int) -> torch.Tensor:
    return rows(*shape[1:]).expand(shape)


def every_second(*shape: int) -> torch.Tensor:
    return rows(*shape[:-1], 2 * shape[-1])[..., ::2]


LAYOUTS = [rows, wider, transposed, repeated, every_second]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 8), (8,), (2, 3, 8), (0, 8)])
def test_a_kernel_that_overwrites_its_input_and_raises_changes_no_answer(
    layout: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> None:
    if layout is repeated and len(shape) == 1:
        shape = (5, 8)
    x = layout(*shape)
    given = x.clone()
    made = dispatcher(candidate(fn=vandal()), reference())
    assert torch.equal(made.call(ACT, None, x), silu_and_mul(None, given))
    assert torch.equal(x, given)
    assert [link.key.impl_id for link in made.quarantined] == ["vendor.acme"]


@pytest.mark.parametrize("op", ["rms_norm", "gemma_rms_norm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_residual_is_given_to_the_next_as_it_was(op: str, layout: Callable[..., torch.Tensor], by_name: bool) -> None:
    x, residual = layout(3, 4), layout(3, 4) * 0.5 if layout is not repeated else layout(3, 4)
    wanted = reference(op).impl.load()(LAYER, x.clone(), residual.clone())
    made = dispatcher(candidate(op=op, fn=vandal()), reference(op))
    got = made.call(op, LAYER, x, residual=residual) if by_name else made.call(op, LAYER, x, residual)
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


def test_an_input_that_is_its_own_residual_is_restored() -> None:
    x = rows(3, 4)
    wanted = reference("rms_norm").impl.load()(LAYER, x.clone(), x.clone())
    made = dispatcher(candidate(op="rms_norm", fn=vandal()), reference("rms_norm"))
    got = made.call("rms_norm", LAYER, x, x)
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("with_key", [True, False])
def test_query_and_key_that_are_views_of_one_row_are_restored(with_key: bool) -> None:
    qkv, cos, sin = rows(5, 3, 8), rows(9, 4), rows(9, 4)
    query, key = qkv[:, :2], qkv[:, 2:] if with_key else None
    positions = torch.arange(5)
    fn = reference("rotary_embedding").impl.load()
    wanted = fn(None, query.clone(), None if key is None else key.clone(), cos, sin, positions)

    def kernel(obj: Any, query: torch.Tensor, key: torch.Tensor | None, *rest: Any) -> Any:
        return vandal()(obj, query, key)

    made = dispatcher(candidate(op="rotary_embedding", fn=kernel), reference("rotary_embedding"))
    got = made.call("rotary_embedding", None, query, key, cos, sin, positions)
    for one, other in zip(got, wanted, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_what_lies_between_the_rows_of_a_view_is_restored_too() -> None:
    whole = rows(3, 11)
    before = whole.clone()
    dispatcher(candidate(fn=vandal()), reference()).call(ACT, None, whole[:, 1:9])
    assert torch.equal(whole, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_in", [torch.no_grad, torch.inference_mode])
def test_the_input_is_restored_in_every_mode_of_autograd(mode: Callable[[], Any], made_in: Callable[[], Any]) -> None:
    def scribble(obj: Any, x: torch.Tensor) -> Any:
        np.asarray(x.detach())[:] = 7
        raise RuntimeError

    with made_in():
        x = rows(3, 8)
    given = x.clone()
    if not x.is_inference():
        x.requires_grad_()
    with mode():
        got = dispatcher(candidate(fn=scribble), reference()).call(ACT, None, x)
    assert torch.equal(got, silu_and_mul(None, given))
    assert torch.equal(x, given)


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


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether a device graph is being captured."""
    return lambda answer: monkeypatch.setattr(probation, "is_capturing", lambda device: answer)


def test_what_is_not_graph_safe_is_passed_over_in_a_capture_and_serves_outside(
    capturing: Callable[[bool], None],
) -> None:
    kernel = Spy(silu_and_mul)
    made = dispatcher(candidate(fn=kernel, graph_safe=False), reference())
    calls = 0
    for captured in (False, True, True, False):
        capturing(captured)
        calls += not captured
        assert made.call(ACT, None, rows(3, 8)).shape == (3, 4)
        assert kernel.calls == calls


def test_where_nothing_is_graph_safe_a_capture_is_an_error_that_says_so(capturing: Callable[[bool], None]) -> None:
    capturing(True)
    with pytest.raises(DispatchError, match=r"vendor.acme: it is not graph-safe"):
        dispatcher(candidate(graph_safe=False)).call(ACT, None, rows(3, 8))


def test_a_call_by_names_reaches_what_is_not_graph_safe() -> None:
    def kernel(obj: Any, query: torch.Tensor, key: Any, cos: Any, sin: Any, position_ids: Any) -> Any:
        return query * 0, None

    made = dispatcher(candidate(op="rotary_embedding", fn=kernel, graph_safe=False), reference("rotary_embedding"))
    tables = {"cos": rows(9, 4), "sin": rows(9, 4), "position_ids": torch.arange(5)}
    query, _ = made.chain("rotary_embedding", rows(5, 2, 8))(obj=None, query=rows(5, 2, 8), key=None, **tables)
    assert torch.count_nonzero(query) == 0


def test_a_capture_is_no_probation(capturing: Callable[[bool], None]) -> None:
    capturing(True)
    made = dispatcher(candidate(fn=broken), reference())
    with pytest.raises(RuntimeError, match="no kernel image"):
        made.call(ACT, None, rows(3, 8))
    assert made.quarantined == ()
    capturing(False)
    made.call(ACT, None, rows(3, 8))
    assert len(made.quarantined) == 1


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


@pytest.fixture
def compile_eagerly() -> Any:
    """``torch.compile`` of whole functions: what Dynamo cannot trace is an error."""
    torch._dynamo.reset()
    return lambda fn, **options: torch.compile(fn, backend="eager", fullgraph=True, **options)


@pytest.mark.parametrize("accepts", [None, lambda obj, x: x.shape[0] < 4], ids=["alone", "with accepts"])
@pytest.mark.parametrize("graph_safe", [True, False])
def test_dynamo_traces_the_bound_function_whole(compile_eagerly: Any, accepts: Any, graph_safe: bool) -> None:
    made = dispatcher(
        candidate(fn=lambda obj, x: silu_and_mul(obj, x) * 2, accepts=accepts, graph_safe=graph_safe), reference()
    )
    with SelectionPolicy(prefer="reference"):  # both have proven themselves
        made.call(ACT, None, rows(3, 8))
    made.call(ACT, None, rows(3, 8))
    bound = made.chain(ACT, rows(3, 8)).function()
    compiled = compile_eagerly(lambda x: bound(None, x) + 1)
    for height in (3, 5):
        x = rows(height, 8)
        mine = graph_safe and (accepts is None or height < 4)
        assert torch.allclose(compiled(x), silu_and_mul(None, x) * (2 if mine else 1) + 1)


def test_dynamo_asks_accepts_of_dynamic_shapes_too(compile_eagerly: Any) -> None:
    kernel = candidate(fn=lambda obj, x: silu_and_mul(obj, x) * 2, accepts=lambda obj, x: x.shape[0] % 2 == 0)
    made = dispatcher(kernel, reference())
    for height in (2, 3):
        made.call(ACT, None, rows(height, 8))
    bound = made.chain(ACT, rows(2, 8)).function()
    compiled = compile_eagerly(lambda x: bound(None, x), dynamic=True)
    for height in (4, 6, 5, 8):
        x = rows(height, 8)
        assert torch.allclose(compiled(x), silu_and_mul(None, x) * (2 if height % 2 == 0 else 1))


@pytest.mark.parametrize(("device", "answer"), [("cpu", False), ("meta", False)])
def test_nothing_captures_on_a_device_without_graphs(device: str, answer: bool) -> None:
    assert probation.is_capturing(torch.device(device)) is answer
