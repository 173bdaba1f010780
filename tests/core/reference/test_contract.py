"""What holds for every reference op and every legal call."""

from __future__ import annotations

import inspect

import pytest
import torch

from sglang_fl.ops import CONTRACTS

from .calls import OPS, Call, for_calls, tensors


def test_every_op_has_a_reference() -> None:
    assert OPS.keys() == CONTRACTS.keys()


@pytest.mark.parametrize("op", CONTRACTS)
def test_an_op_takes_what_its_contract_says(op: str) -> None:
    promised = CONTRACTS[op].signature.parameters.values()
    taken = inspect.signature(OPS[op]).parameters.values()
    assert [(p.name, p.kind, p.default) for p in taken] == [(p.name, p.kind, p.default) for p in promised]


@for_calls()
def test_the_result_is_legal(call: Call) -> None:
    contract = CONTRACTS[call.op]
    assert contract.check(contract.bind((), call.arguments), call()) is None


@for_calls()
def test_inputs_are_not_overwritten(call: Call) -> None:
    before = [_bytes(tensor).clone() for tensor in call.tensors]
    call()
    assert all(torch.equal(_bytes(tensor), old) for tensor, old in zip(call.tensors, before, strict=True))


@for_calls()
def test_results_share_no_memory_with_inputs(call: Call) -> None:
    inputs = {tensor.untyped_storage().data_ptr() for tensor in call.tensors if tensor.numel()}
    assert all(result.untyped_storage().data_ptr() not in inputs for result in tensors(call()))


@for_calls()
def test_the_same_call_gives_the_same_bits(call: Call) -> None:
    for results in zip(tensors(call()), tensors(call()), strict=True):
        # .contiguous() would leave a lone column its stride, with which it has no view as bytes.
        first, second = (result.clone(memory_format=torch.contiguous_format) for result in results)
        assert torch.equal(first.view(torch.uint8), second.view(torch.uint8))


@for_calls()
def test_the_host_never_waits_for_a_value(call: Call) -> None:
    # A meta tensor has a shape and no values: whatever looks at one raises.
    vars(call.obj).update({name: _on_meta(value) for name, value in vars(call.obj).items()})
    call.arguments = {name: _on_meta(value) for name, value in call.arguments.items()}
    contract = CONTRACTS[call.op]
    assert contract.check(contract.bind((), call.arguments), call()) is None


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory that ``tensor`` lies in, with what lies beside it."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def _on_meta(value: object) -> object:
    return value.to("meta") if isinstance(value, torch.Tensor) else value
