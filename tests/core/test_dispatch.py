from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from sglang_fl import dispatch, probation
from sglang_fl.dispatch import Dispatcher
from sglang_fl.errors import DispatchError
from sglang_fl.ops import CONTRACTS
from sglang_fl.policy import SelectionPolicy
from sglang_fl.probation import Chain

from .samples import LAYER, Spy, broken, candidate, reference, run_python, silu_and_mul

ACT = "silu_and_mul"
X = torch.ones(2, 8)


@pytest.fixture
def chained(monkeypatch: pytest.MonkeyPatch) -> list[Chain]:
    """The chains that calls go through."""
    calls: list[Chain] = []
    call = Chain.__call__

    def recorded(chain: Chain, *args: Any, **kwargs: Any) -> Any:
        calls.append(chain)
        return call(chain, *args, **kwargs)

    monkeypatch.setattr(Chain, "__call__", recorded)
    return calls


@pytest.fixture
def selections(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Counts the rankings."""
    spy = Spy(dispatch.select)
    monkeypatch.setattr(dispatch, "select", spy)
    return spy


def test_an_op_is_ranked_once_and_then_its_own_function_is_called(chained: list[Chain], selections: Spy) -> None:
    kernel = Spy(silu_and_mul)
    made = Dispatcher([candidate(fn=kernel), reference()], SelectionPolicy())
    for _ in range(5):
        assert torch.equal(made.call(ACT, None, X), silu_and_mul(None, X))
    assert (selections.calls, len(chained), kernel.calls) == (1, 1, 5)
    assert made.chain(ACT, X).function() is kernel


def test_each_dtype_and_device_is_bound_on_its_own_with_one_ranking(chained: list[Chain], selections: Spy) -> None:
    made = Dispatcher([candidate(), reference()], SelectionPolicy())
    inputs = [X, X.half(), X.double(), X.to("meta")]
    for x in (*inputs, *inputs):
        assert made.call(ACT, None, x).dtype == x.dtype
    assert (selections.calls, len(chained)) == (1, len(inputs))


def test_a_block_with_a_policy_binds_for_itself(chained: list[Chain], selections: Spy) -> None:
    made = Dispatcher([candidate(), reference()], SelectionPolicy())
    for _ in range(3):
        made.call(ACT, None, X)
        with SelectionPolicy(prefer="reference"):
            made.call(ACT, None, X)
    assert (selections.calls, len(chained)) == (2, 2)


def test_a_fallback_is_bound_like_any_other(chained: list[Chain]) -> None:
    made = Dispatcher([candidate(fn=broken), reference()], SelectionPolicy())
    for _ in range(3):
        made.call(ACT, None, X)
    assert len(chained) == 1


def test_what_may_refuse_a_call_is_asked_for_each(chained: list[Chain]) -> None:
    accepts = Spy(lambda obj, x: True)
    made = Dispatcher([candidate(accepts=accepts), reference()], SelectionPolicy())
    for _ in range(3):
        made.call(ACT, None, X)
    assert (accepts.calls, len(chained)) == (3, 1)


def test_a_call_in_a_capture_does_not_keep_later_ones_from_being_bound(
    chained: list[Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Dispatcher([candidate(), reference()], SelectionPolicy())
    for capturing in (True, False):
        for module in (dispatch, probation):
            monkeypatch.setattr(module, "is_capturing", lambda device, answer=capturing: answer)
        made.call(ACT, None, X)
    chained.clear()
    made.call(ACT, None, X)
    assert chained == []


def test_arguments_reach_the_implementation_as_they_were_given() -> None:
    seen: list[tuple[Any, ...]] = []

    def kernel(obj: Any, x: Any, residual: Any = None) -> Any:
        seen.append((obj, x, residual))
        return x, residual

    made = Dispatcher([candidate(op="rms_norm", fn=kernel)], SelectionPolicy())
    x, residual = torch.ones(1, 4), torch.zeros(1, 4)
    for _ in range(2):
        made.call("rms_norm", LAYER, x, residual)
        made.call("rms_norm", LAYER, x, residual=residual)
    assert all(one is LAYER and two is x and three is residual for one, two, three in seen)
    assert len(seen) == 4


@pytest.mark.parametrize("ask", [lambda made, op: made.call(op, None, X), Dispatcher.resolve, Dispatcher.select])
def test_an_unknown_op_is_an_error_with_the_nearest_name(ask: Callable[[Dispatcher, str], Any]) -> None:
    with pytest.raises(DispatchError, match=r"the op 'silu_mul'; found no such op. To do: did you mean 'silu_and_mul'"):
        ask(Dispatcher([reference()], SelectionPolicy()), "silu_mul")


@pytest.mark.parametrize("op", CONTRACTS)
@pytest.mark.parametrize("ask", [lambda made, op: made.call(op, None, X), Dispatcher.resolve])
def test_an_op_that_nobody_offers_is_an_error(op: str, ask: Callable[[Dispatcher, str], Any]) -> None:
    with pytest.raises(DispatchError, match=f"an implementation of {op} .*none left .*no plugin offers one"):
        ask(Dispatcher([], SelectionPolicy()), op)


def test_an_error_says_which_setting_left_nothing() -> None:
    policy = SelectionPolicy(deny_vendors=["acme"], said_by={"deny_vendors": "SGLANG_FL_DENY_VENDORS"})
    with pytest.raises(DispatchError, match=r"vendor.acme: vendor acme is denied by SGLANG_FL_DENY_VENDORS"):
        Dispatcher([candidate()], policy).call(ACT, None, X)


def test_resolving_gives_the_authors_own_function() -> None:
    made = Dispatcher([candidate(fn=broken, accepts=bool), reference()], SelectionPolicy())
    assert made.resolve(ACT) is broken
    with SelectionPolicy(prefer="reference"):
        assert made.resolve(ACT).__module__ == "sglang_fl.reference.activation"


@pytest.mark.parametrize("fn", ["a_module_that_is_not:kernel", "json:there_is_none", "json:__name__"])
def test_resolving_what_cannot_be_imported_is_an_error_that_names_whose_it_is(fn: str) -> None:
    with pytest.raises(DispatchError, match=rf"'vendor.acme' of acme-chip: asked for the function '{fn}' of {ACT}"):
        Dispatcher([candidate(fn=fn), reference()], SelectionPolicy()).resolve(ACT)


def test_many_threads_may_call_a_new_op_at_once(chained: list[Chain]) -> None:
    made = Dispatcher([candidate(), reference()], SelectionPolicy())
    barrier = threading.Barrier(16)

    def call(i: int) -> bool:
        x = torch.full((2, 8), float(i)).to((torch.float32, torch.float64)[i % 2])
        barrier.wait(30)
        return all(torch.equal(made.call(ACT, None, x), silu_and_mul(None, x)) for _ in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(16)))
    assert made.quarantined == ()
    chained.clear()
    made.call(ACT, None, X)
    made.call(ACT, None, X.double())
    assert chained == []


def test_threads_that_meet_at_a_new_op_share_one_proof_of_each_implementation() -> None:
    made = Dispatcher([candidate(), reference()], SelectionPolicy())
    barrier = threading.Barrier(16)

    def chain(i: int) -> Chain:
        barrier.wait(30)
        return made.chain(ACT, X)

    with ThreadPoolExecutor(16) as pool:
        chains = list(pool.map(chain, range(16)))
    assert len(set(map(id, chains))) == 1


def test_the_quarantined_may_be_listed_while_other_threads_bind() -> None:
    offered = [candidate(f"v{i}") for i in range(200)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        made = Dispatcher(offered, SelectionPolicy())
        dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64] * 5
        with ThreadPoolExecutor(2) as pool:
            binding = pool.submit(lambda: [made.chain(ACT, X.to(dtype)) for dtype in dtypes])
            while not binding.done():
                assert made.quarantined == ()
            binding.result()
    finally:
        sys.setswitchinterval(interval)


FORK = """
import os, sys, threading, torch
from types import ModuleType
from tests.core.samples import candidate, reference, silu_and_mul
from sglang_fl.dispatch import Dispatcher
from sglang_fl.policy import SelectionPolicy

torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
inside, release = threading.Event(), threading.Event()

class Slow(ModuleType):
    def __getattr__(self, name):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            release.wait(60)
        return silu_and_mul

sys.modules["slow_kernels"] = Slow("slow_kernels")
made = Dispatcher([candidate(fn="slow_kernels:kernel"), reference()], SelectionPolicy())
x = torch.ones(2, 8)
made.call("silu_and_mul", None, x.double())
thread = threading.Thread(target=made.call, args=("silu_and_mul", None, x))
thread.start()
inside.wait(60)  # a thread is in the middle of a first call
child = os.fork()
if child == 0:
    inputs = (x, x.double(), x.half())
    right = all(torch.equal(made.call("silu_and_mul", None, y), silu_and_mul(None, y)) for y in inputs)
    with SelectionPolicy(prefer="reference"):
        right = right and torch.allclose(made.call("silu_and_mul", None, x), silu_and_mul(None, x))
    os._exit(0 if right else 1)
release.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_forked_in_the_middle_of_a_first_call_can_call() -> None:
    done = run_python(FORK, site=Path.cwd())
    assert done.stdout == "0\n", done.stderr
