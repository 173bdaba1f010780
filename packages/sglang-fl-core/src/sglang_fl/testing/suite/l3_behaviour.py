"""L3: one call after another, and what a call may not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.space import served_space
from sglang_fl.testing.checks import require_values, same_results
from sglang_fl.testing.host import HostSync, no_host_sync, what_is_seen
from sglang_fl.testing.under_test import OpUnderTest, Outcome


@pytest.mark.L3
def test_the_same_call_gives_the_same_bits(op: OpUnderTest) -> None:
    """Twice in a row."""

    def check(call: Call) -> None:
        first, second = op.run(call), op.run(call)
        if first is not None and second is not None and not same_results(first, second):
            raise op.failure(call, "other bits the second time", "fix the order in which a row is summed")

    op.for_all(op.space, check)


@pytest.mark.L3
def test_later_calls_are_as_right_as_the_first(op: OpUnderTest) -> None:
    """Nothing that a first call leaves behind (a compiled kernel, a cached row) serves a later one wrongly."""

    def check(call: Call) -> None:
        for one in (call, call.varied(), call, call.varied()):
            outcome = op.run(one)
            if outcome is not None:
                require_values(op, one, outcome, "keep nothing from one call for the next that the next may change")

    op.for_all(op.space, check)


@pytest.mark.L3
def test_results_of_earlier_calls_stay(op: OpUnderTest) -> None:
    """A result is the caller's: no later call of the same layer writes to it, or is answered with it."""

    def check(call: Call) -> None:
        first = op.run(call)
        if first is None:
            return
        kept = Outcome(first.given, tuple(None if one is None else one.clone() for one in first.results))
        other = replace(call.varied(), layer=call.layer)
        later = other.on(op.device)
        later.obj = first.given.obj
        second = op.run_given(other, later)
        if not same_results(kept, first):
            raise op.failure(call, "the next call overwrote its result", "give every call a result of its own")
        if second is not None:
            require_values(op, other, second, "keep nothing on the layer that the next call may change")

    op.for_all(op.space, check)


@pytest.mark.L3
def test_a_changed_weight_counts(norm: OpUnderTest) -> None:
    """Weights are updated in place: what is computed from them once is stale then."""

    def check(call: Call) -> None:
        changed, outcome = call.varied(), norm.run(call)
        if outcome is None:
            return
        layer = outcome.given.placed.layer
        for name in ("weight", "bias"):
            if name in layer:
                layer[name].tensor.copy_(changed.layer[name].tensor)
        later = changed.on(norm.device)
        later.obj = outcome.given.obj
        again = norm.run_given(changed, later)
        if again is not None:
            require_values(norm, changed, again, "read the weights in every call")

    norm.for_all(norm.space, check)


@pytest.mark.L3
def test_arguments_come_by_name_or_by_position(op: OpUnderTest) -> None:
    """The names are the contract's: both kinds of call are made."""
    do = f"keep the contract's names and order: {op.op}{op.contract.signature}"

    def check(call: Call) -> None:
        outcome = op.run(call)
        if outcome is None:
            return
        try:
            by_name = op.run_given(call, call.on(op.device), by_name=True)
        except TypeError as error:
            raise op.failure(call, f"called by name, TypeError: {error}", do) from error
        if by_name is not None and not same_results(outcome, by_name):
            raise op.failure(call, "another answer by name than by position", do)

    op.for_all(op.space, check)


@pytest.mark.L3
def test_the_host_never_waits_for_the_device(op: OpUnderTest) -> None:
    """No value is read back: it would stall the queue, and cannot be captured in a graph. After a first call."""
    op.notes.append(what_is_seen(op.device))

    def check(call: Call) -> None:
        if op.run(call) is None:
            return
        given = call.on(op.device)
        try:
            with no_host_sync(op.device):
                op.run_given(call, given)
        except HostSync as error:
            raise op.failure(call, str(error), "keep decisions that depend on values on the device") from error

    op.for_all(op.space, check)


@pytest.mark.L3
def test_accepts_takes_some_calls(op: OpUnderTest) -> None:
    """An implementation that refuses every call of a served model serves nobody."""
    if op.accepts is None:
        pytest.skip("the record has no accepts: it takes every call")
    taken = 0

    def check(call: Call) -> None:
        nonlocal taken
        taken += op.run(call) is not None

    op.examine(served_space(op.space), check)
    if not taken:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in op.tally.refusals.most_common(3))
        do = f"accept more, or declare no {op.op} and close it in requirements.py"
        raise op.failure(f"what served models call {op.op} with", f"every one refused: {reasons}", do)
