"""L6: device graphs and ``torch.compile``, as the record says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sglang_fl.opaque import opaque
from sglang_fl.testing.calls.call import Call, Given
from sglang_fl.testing.capture import captured, graph_class
from sglang_fl.testing.checks import require_values
from sglang_fl.testing.serving.prompts import prompts
from sglang_fl.testing.serving.servers import Served
from sglang_fl.testing.subject import Subject
from sglang_fl.testing.under_test import OpUnderTest, Outcome

_FEW = 4
"""Captures and compilations take long; the numbers that an op computes are the matter of L3."""


@pytest.mark.L6
def test_a_captured_call_replays_on_new_numbers(subject: Subject, op: OpUnderTest) -> None:
    """What is captured reads its inputs anew at every replay."""
    subject.require_open("graphs")
    subject.require_real_device("a graph")
    if graph_class(op.device) is None:
        pytest.skip(f"torch has no graphs on {op.device.type}")
    if not op.impl.graph_safe:
        pytest.skip("the record declares graph_safe=False: no graph will hold it")

    def check(call: Call) -> None:
        if op.run(call) is None:
            return
        given = call.on(op.device)
        with torch.inference_mode():
            replay, answer = captured(op.device, lambda: op.fn(given.obj, *given.arguments.values()))
        for numbers in (call, call.varied()):
            _refill(given, numbers)
            replay()
            do = "launch on the current stream, and keep nothing on the host; else declare graph_safe=False"
            require_values(op, numbers, Outcome(given, _as_tuple(answer)), do)

    op.at_most(_FEW).for_all(op.space, check)


@pytest.mark.L6
def test_it_is_traced_into_one_graph(subject: Subject, op: OpUnderTest) -> None:
    """Dynamo takes the whole function, or, with traceable=False, the custom op that core makes of it."""
    subject.require_open("compile")
    fn = op.fn if op.impl.traceable else opaque(op.op, op.impl.impl_id, op.fn)

    def compiled(*arguments: Any) -> Any:
        torch._dynamo.reset()  # shapes of earlier calls are no matter here
        return torch.compile(fn, backend="aot_eager", fullgraph=True)(*arguments)

    def check(call: Call) -> None:
        outcome = op.run_given(call, call.on(op.device), fn=compiled)
        if outcome is not None:
            do = "mend what Dynamo traces differently, or declare traceable=False"
            require_values(op, call, outcome, do)

    op.at_most(_FEW).for_all(op.space, check)


@pytest.mark.L6
def test_a_server_that_replays_graphs_is_right(replaying: Served) -> None:
    """With the subject's own ops inside; batches that are padded to the size of a graph, too."""
    for asked in (prompts(7), prompts(5, 9, 31)):
        replaying.require_right(asked, replaying.server.generate(asked, 24))


@pytest.mark.L6
def test_the_subjects_ops_serve_that_server(subject: Subject, replaying: Served) -> None:
    """Every op of the model that it has; none has failed and been replaced."""
    own = subject.requirements.implementation
    others = {op: impl for op, impl in replaying.serving.items() if op in subject.impls and impl != own}
    assert not others, f"{subject.name} serves not all of its ops: {others}; log: {replaying.server.log}"
    assert not replaying.quarantined, f"{replaying.quarantined}; log: {replaying.server.log}"


def _refill(given: Given, numbers: Call) -> None:
    for (_, held), (_, new) in zip(given.placed.placed(), numbers.placed(), strict=True):
        held.memory.copy_(new.memory)


def _as_tuple(answer: Any) -> tuple[Any, ...]:
    return tuple(answer) if isinstance(answer, tuple | list) else (answer,)
