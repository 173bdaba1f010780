"""What the suite asks of the answer to a call."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sglang_fl.testing.calls.call import Call, Given
from sglang_fl.testing.calls.placed import Placed, same_bits
from sglang_fl.testing.exact import exact
from sglang_fl.testing.nearness import distance
from sglang_fl.testing.under_test import MEND, OpUnderTest, Outcome

Check = Callable[[Call], None]

_RESULTS = {
    "rms_norm": ("the norm", "the sum"),
    "gemma_rms_norm": ("the norm", "the sum"),
    "rotary_embedding": ("the query", "the key"),
}


def check_values(op: OpUnderTest, do: str = MEND) -> Check:
    """The answer is that of float64, within the op's tolerance."""

    def check(call: Call) -> None:
        outcome = op.run(call)
        if outcome is not None:
            require_values(op, call, outcome, do)

    return check


def require_values(op: OpUnderTest, call: Call, outcome: Outcome, do: str = MEND) -> None:
    """Raises Nonconformance when a result is too far from the exact one."""
    names = _RESULTS.get(op.op, ("the result",))
    for name, got, wanted in zip(names, outcome.results, exact(call), strict=False):
        if wanted is not None:
            found = distance(got, wanted, op.contract.tolerance)
            if found is not None:
                raise op.failure(call, f"in {name}, {found}", do)


def check_what_stays(op: OpUnderTest, do: str | None = None) -> Check:
    """No tensor holds other values than before, but those that the contract and the record let it overwrite."""

    def check(call: Call) -> None:
        outcome = op.run(call)
        if outcome is None:
            return
        allowed = overwritten_by(op, outcome.given)
        for (name, before), (_, after) in _tensors(call, outcome):
            changed = ~same_bits(before.tensor, after.tensor)
            if name not in allowed and bool(changed.any()):
                found = f"{name} is overwritten, {int(changed.sum())} of its {changed.numel()} elements"
                raise op.failure(call, found, do or _remedy(op, name))

    return check


def check_neighbours(op: OpUnderTest) -> Check:
    """What lies in memory before, between and behind the tensors stays as it is."""

    def check(call: Call) -> None:
        outcome = op.run(call)
        if outcome is None:
            return
        for (name, before), (_, after) in _tensors(call, outcome):
            now = after.memory.detach().cpu().clone()
            after.within(now).tensor.copy_(before.tensor)  # what is the tensor's own is no neighbour
            changed = ~same_bits(before.memory, now)
            if bool(changed.any()):
                found = f"{int(changed.sum())} elements beside {name} are overwritten"
                raise op.failure(call, found, "write to the elements of the tensor alone: mind strides and tails")

    return check


def check_sharing(op: OpUnderTest) -> Check:
    """No result lies in the memory of a tensor that must stay: whoever overwrites the result would overwrite that."""

    def check(call: Call) -> None:
        outcome = op.run(call)
        if outcome is None:
            return
        allowed = overwritten_by(op, outcome.given)
        homes = {_home(placed.tensor): name for name, placed in outcome.given.placed.placed() if name not in allowed}
        for result in outcome.results:
            shared = None if result is None or not result.numel() else homes.get(_home(result))
            if shared is not None:
                raise op.failure(call, f"a result lies in the memory of {shared}", _remedy(op, shared))

    return check


def overwritten_by(op: OpUnderTest, given: Given) -> frozenset[str]:
    """The arguments that this call may overwrite: the contract lets it, and the record declares it."""
    arguments = op.contract.bind((given.obj, *given.arguments.values()), {})
    return frozenset(op.contract.overwrites(arguments)) & frozenset(op.impl.mutates)


def same_results(one: Outcome, other: Outcome) -> bool:
    """Have two answers the same bits?"""
    pairs = [pair for pair in zip(one.results, other.results, strict=True) if pair[0] is not None]
    return all(bool(same_bits(*pair).all()) for pair in pairs)


def _tensors(call: Call, outcome: Outcome) -> list[tuple[tuple[str, Placed], tuple[str, Placed]]]:
    return list(zip(call.placed(), outcome.given.placed.placed(), strict=True))


def _home(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _remedy(op: OpUnderTest, name: str) -> str:
    if name not in op.contract.overwritable:
        return f"write to a new tensor: {op.op} may not overwrite {name}"
    return f"declare it, mutates=({name!r},), if it happens only where the contract lets it; else write to a new tensor"
