from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sglang_fl import probation
from sglang_fl.errors import DispatchError
from sglang_fl.policy import SelectionPolicy

from .samples import Spy, broken, candidate, dispatcher, reference, rows, silu_and_mul

ACT = "silu_and_mul"


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
