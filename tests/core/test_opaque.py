"""Implementations that Dynamo cannot trace, compiled and not."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl.opaque import opaque
from sglang_fl.ops import CONTRACTS
from sglang_fl.reference.hooks import sglang_fl_register_ops

from .samples import CPU, candidate, dispatcher, for_all, impl, reference, rows, silu_and_mul

REFERENCE = {impl.op: impl.load() for impl in sglang_fl_register_ops(CPU)}
NORM = SimpleNamespace(
    weight=rows(8), bias=rows(2, 8)[1], variance_epsilon=1e-6, elementwise_affine=True, use_bias=True
)
ROTARY = SimpleNamespace(head_size=8, rotary_dim=8, is_neox_style=True, cos_sin_cache=rows(16, 8))


def logging_kernel(op: str) -> Any:
    """The reference implementation of ``op`` that logs, which Dynamo refuses to trace."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        logging.getLogger(__name__).debug("called")
        return REFERENCE[op](*args, **kwargs)

    return kernel


def in_place_kernel(op: str) -> Any:
    """As above, and the answer is in what the op lets it overwrite."""

    def kernel(obj: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = CONTRACTS[op].bind((obj, *args), kwargs)
        results = logging_kernel(op)(obj, *args, **kwargs)
        names = CONTRACTS[op].overwrites(arguments)
        if not names:
            return results
        targets = tuple(arguments[name] for name in names)
        for target, result in zip(targets, results, strict=True):
            if target is not None:
                target.copy_(result)
        return targets

    return kernel


def calls(op: str) -> list[tuple[Any, ...]]:
    """The arguments of every kind of call of ``op``, fresh each time."""
    if op.endswith("_and_mul"):
        return [(None, rows(3, 8)), (None, rows(2, 3, 8)), (None, rows(0, 8)), (None, rows(3, 16)[:, ::2])]
    if op == "layer_norm":
        bare = SimpleNamespace(variance_epsilon=1e-6, weight=None, bias=None, elementwise_affine=False, use_bias=False)
        return [(NORM, rows(3, 8)), (bare, rows(3, 8))]
    if op.endswith("rms_norm"):
        return [(NORM, rows(3, 8)), (NORM, rows(3, 8), rows(2, 3, 8)[1]), (NORM, rows(0, 8), rows(0, 8))]
    tables = (*ROTARY.cos_sin_cache.chunk(2, dim=-1), torch.tensor([3, 0, 15]))
    return [
        (ROTARY, rows(3, 2, 8), key, *tables, interleaved, inplace)
        for key in (None, rows(2, 3, 1, 8)[1])
        for interleaved in (False, True)
        for inplace in (False, True)
    ]


def compiled(fn: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(fn, backend="aot_eager", fullgraph=True)


def test_dynamo_refuses_such_a_kernel_without_the_wrap() -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(logging_kernel("silu_and_mul"))(None, rows(3, 8))


@pytest.mark.parametrize("kernel", [logging_kernel, in_place_kernel])
@pytest.mark.parametrize("op", CONTRACTS)
def test_compiled_and_eager_calls_answer_alike(op: str, kernel: Any) -> None:
    fn = opaque(op, "vendor.acme", kernel(op))
    for number, wanted in enumerate(REFERENCE[op](*args) for args in calls(op)):
        torch.testing.assert_close(fn(*calls(op)[number]), wanted, rtol=0, atol=0)
        torch.testing.assert_close(compiled(fn)(*calls(op)[number]), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [logging_kernel, in_place_kernel])
@pytest.mark.parametrize("op", CONTRACTS)
def test_only_what_the_contract_lets_be_overwritten_is_overwritten_in_compiled_code(op: str, kernel: Any) -> None:
    fn = compiled(opaque(op, "vendor.acme", kernel(op)))
    for number in range(len(calls(op))):
        given, before = calls(op)[number], calls(op)[number]
        fn(*given)
        names = CONTRACTS[op].overwrites(CONTRACTS[op].bind(given, {}))
        for name, mine, theirs in zip(CONTRACTS[op].signature.parameters, given, before, strict=False):
            if isinstance(mine, torch.Tensor) and name not in names:
                assert torch.equal(mine, theirs), name


def test_torch_finds_the_schemas_and_fakes_true() -> None:
    for op in CONTRACTS:
        fn = opaque(op, "vendor.checked", in_place_kernel(op))
        for args in calls(op):
            for overload, operands in ops_called(fn, args):
                torch.library.opcheck(overload, operands, test_utils=("test_schema", "test_faketensor"))


def ops_called(fn: Any, args: tuple[Any, ...]) -> list[tuple[Any, tuple[Any, ...]]]:
    """The custom ops that compiled code calls for ``fn(*args)``, each with its operands."""
    seen: list[tuple[Any, tuple[Any, ...]]] = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, operands: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "sglang_fl":
                seen.append((func, tuple(operands)))
            return func(*operands, **(kwargs or {}))

    with pytest.MonkeyPatch.context() as patch, Recorder():
        patch.setattr("sglang_fl.opaque.is_compiling", lambda: True)
        fn(*args)
    assert seen
    return seen


def test_an_answer_in_the_other_argument_s_memory_is_not_lost() -> None:
    def swapping(obj: Any, x: torch.Tensor, residual: torch.Tensor) -> Any:
        y, total = REFERENCE["rms_norm"](obj, x, residual)
        return residual.copy_(y), x.copy_(total)

    given = (NORM, rows(3, 8), rows(2, 3, 8)[1])
    wanted = REFERENCE["rms_norm"](NORM, rows(3, 8), rows(2, 3, 8)[1])
    torch.testing.assert_close(compiled(opaque("rms_norm", "a", swapping))(*given), wanted, rtol=0, atol=0)


def test_an_eager_call_goes_to_the_function_itself() -> None:
    marker = object()
    assert opaque("silu_and_mul", "a", lambda obj, x: (obj, x))(marker, 3) == (marker, 3)


@for_all(st.lists(st.sampled_from(["vendor.a", "vendor-a", "b"]), max_size=4))
def test_any_number_of_implementations_have_ops_of_their_own(ids: list[str]) -> None:
    made = [opaque("silu_and_mul", name, lambda obj, x, n=n: x[..., :4] * n) for n, name in enumerate(ids)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sglang_fl.opaque.is_compiling", lambda: True)
        for n, fn in enumerate(made):
            assert torch.equal(fn(None, rows(2, 8)), rows(2, 8)[..., :4] * n)


def test_a_name_in_any_script_can_be_that_of_an_op() -> None:
    fn = opaque("silu_and_mul", "vendor.昇", lambda obj, x: x[..., :4])
    assert torch.equal(compiled(fn)(None, rows(2, 8)), rows(2, 8)[..., :4])


def test_threads_that_meet_at_one_name_get_an_op_each() -> None:
    switch, meeting = sys.getswitchinterval(), threading.Barrier(4)

    def wrap(n: int) -> Any:
        meeting.wait()
        return opaque("silu_and_mul", "vendor.met", lambda obj, x: x[..., :4] * n)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            made = [fn for _ in range(25) for fn in pool.map(wrap, range(4))]
    finally:
        sys.setswitchinterval(switch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sglang_fl.opaque.is_compiling", lambda: True)
        for i, fn in enumerate(made):
            assert torch.equal(fn(None, rows(2, 8)), rows(2, 8)[..., :4] * (i % 4))


def test_a_dispatcher_wraps_what_is_declared_so_once() -> None:
    made = dispatcher(candidate(fn=logging_kernel("silu_and_mul"), traceable=False), reference())
    for dtype in (torch.float32, torch.float64):
        made.call("silu_and_mul", None, rows(3, 8).to(dtype))
    bound = {made.chain("silu_and_mul", rows(3, 8).to(d)).function() for d in (torch.float32, torch.float64)}
    assert len(bound) == 1
    assert torch.equal(compiled(bound.pop())(None, rows(3, 8)), silu_and_mul(None, rows(3, 8)))


def test_compiled_code_that_comes_first_calls_the_best_that_accepts() -> None:
    narrow = candidate(fn=lambda obj, x: silu_and_mul(obj, x) * 2, accepts=lambda obj, x: x.shape[-1] < 9 or "too wide")
    call = dispatcher(narrow, reference()).for_compiler("silu_and_mul")
    assert call is not None
    assert torch.equal(compiled(call)(None, rows(3, 8)), silu_and_mul(None, rows(3, 8)) * 2)
    assert torch.equal(compiled(call)(None, rows(3, 10)), silu_and_mul(None, rows(3, 10)))


@pytest.mark.parametrize(
    "accepts",
    [lambda obj, x: x.shape[0] <= 65535, lambda obj, x: 1],
    ids=["of a size that Dynamo keeps open", "truthy"],
)
def test_an_answer_counts_by_its_truth_in_compiled_code_as_elsewhere(accepts: Any) -> None:
    doubled = candidate(fn=lambda obj, x: silu_and_mul(obj, x) * 2, accepts=accepts)
    call = dispatcher(doubled, reference()).for_compiler("silu_and_mul")
    assert call is not None
    x = rows(3, 8)
    torch._dynamo.mark_dynamic(x, 0)
    assert torch.equal(compiled(call)(None, x), silu_and_mul(None, rows(3, 8)) * 2)


def test_nothing_serves_compiled_code_where_each_may_refuse() -> None:
    assert dispatcher(candidate(accepts=lambda obj, x: True)).for_compiler("silu_and_mul") is None


def test_what_cannot_be_imported_is_passed_over_by_the_compiler() -> None:
    made = dispatcher(candidate(fn="nowhere:fn"), reference())
    assert made.for_compiler("silu_and_mul") is REFERENCE["silu_and_mul"]
    assert made.quarantined == ()


def test_what_has_failed_is_passed_over_by_the_compiler() -> None:
    made = dispatcher(candidate(fn=lambda obj, x: x), reference())
    assert torch.equal(made.call("silu_and_mul", None, rows(3, 8)), silu_and_mul(None, rows(3, 8)))
    assert len(made.quarantined) == 1
    assert made.for_compiler("silu_and_mul") is REFERENCE["silu_and_mul"]


def test_traceable_is_true_or_false() -> None:
    assert impl().traceable
    with pytest.raises(ValueError, match="traceable is 'no'"):
        impl(traceable="no")
