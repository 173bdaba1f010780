"""What the ops call is legal by the operators' real schemas, and answers as the ops' contracts say, on meta tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sglang_fl.testing.calls.call import Call
from tests.ascend.under_torch_npu.subjects import IMPLS, OPS, subject


class Called(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[torch._ops.OpOverload] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators.add(func)
        return func(*args, **(kwargs or {}))

    @property
    def of_torch_npu(self) -> set[torch._ops.OpOverload]:
        return {operator for operator in self.operators if operator.namespace == "npu"}


def _operators_of(op: str) -> Called:
    called, under_test = Called(), subject(op, "meta")

    def check(call: Call) -> None:
        with called:
            under_test.run(call)  # raises for a call that is illegal by the schema, and an answer by the contract

    under_test.for_all(under_test.space, check)
    assert under_test.tally.offered > under_test.tally.refused
    return called


@pytest.mark.parametrize("op", OPS)
def test_an_op_calls_the_operators_that_it_is_declared_to_need(op: str) -> None:
    needed = set(IMPLS[op].is_available.args)  # type: ignore[attr-defined]
    assert {operator.__name__.partition(".")[0] for operator in _operators_of(op).of_torch_npu} == needed
    assert IMPLS[op].is_available() is True


@pytest.mark.parametrize("op", OPS)
def test_an_op_calls_nothing_that_overwrites_by_its_schema(op: str) -> None:
    assert IMPLS[op].mutates == ()
    overwriting = {operator for operator in _operators_of(op).operators if operator._schema.is_mutable}
    assert overwriting <= {torch.ops.aten.copy_.default}  # of the call into its own memory, by the kit


def test_an_operator_that_a_release_lacks_is_named() -> None:
    from sglang_fl_ascend import npu

    assert npu.has_operators("npu_swiglu", "npu_no_such") == f"torch_npu {_version()} has no npu_no_such"


def _version() -> str:
    import torch_npu

    return str(torch_npu.__version__)
