"""What the kit draws is legal, lies where it says, and is the same in every copy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.calls import calls
from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.placed import GUARD, Layout, place, same_bits
from sglang_fl.testing.calls.space import served_space, whole_space
from sglang_fl.testing.under_test import DTYPES

CPU = torch.device("cpu")
SPACE = replace(whole_space(DTYPES, CPU), layouts=tuple(Layout))
any_call = st.sampled_from(tuple(CONTRACTS)).flatmap(lambda op: calls(op, SPACE))


@given(any_call)
def test_a_call_is_legal(call: Call) -> None:
    given_to = call.on(CPU)
    contract = CONTRACTS[call.op]
    arguments = contract.bind((given_to.obj, *given_to.arguments.values()), {})
    assert list(arguments) == list(contract.signature.parameters)
    assert {name for name in vars(given_to.obj) if not name.startswith("_")} == set(contract.reads)
    activations = [arguments[name] for name in contract.activations if arguments[name] is not None]
    assert len({tensor.dtype for tensor in activations if tensor.is_floating_point()}) == 1


@given(any_call)
def test_a_layer_has_what_the_contract_promises_and_no_more(call: Call) -> None:
    with pytest.raises(AttributeError, match=f"the contract of {call.op} promises"):
        _ = call.on(CPU).obj.hidden_size


@given(any_call)
def test_numbers_have_guards_around_them(call: Call) -> None:
    for _, placed in call.placed():
        if placed.tensor.is_floating_point():
            assert placed.memory[:GUARD].isnan().all()
            assert placed.memory[-GUARD // 2 :].isnan().all()
        assert not placed.tensor.isnan().any()


@given(any_call)
def test_a_copy_has_the_same_bits_in_memory_of_its_own(call: Call) -> None:
    copies = dict(call.on(CPU).placed.placed())
    before = {name: placed.memory.clone() for name, placed in call.placed()}
    for name, placed in call.placed():
        assert same_bits(placed.memory, copies[name].memory).all()
        assert copies[name].tensor.stride() == placed.tensor.stride()
    for copy in copies.values():
        copy.memory.fill_(7)
    assert all(same_bits(placed.memory, before[name]).all() for name, placed in call.placed())


@given(calls("rotary_embedding", SPACE))
def test_cos_and_sin_are_views_of_the_layers_cache(call: Call) -> None:
    given_to = call.on(CPU)
    whole = torch.cat((given_to.arguments["cos"], given_to.arguments["sin"]), dim=-1)
    assert torch.equal(whole, given_to.obj.cos_sin_cache)
    home = given_to.obj.cos_sin_cache.untyped_storage().data_ptr()
    assert {given_to.arguments[name].untyped_storage().data_ptr() for name in ("cos", "sin")} == {home}


@pytest.mark.parametrize("layout", Layout)
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
def test_a_layout_keeps_the_values(layout: Layout, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape)
    placed = place(values, layout)
    assert torch.equal(placed.tensor, values)
    assert placed.memory.isnan().sum() == placed.memory.numel() - values.numel()


def test_layouts_other_than_contiguous_are_not() -> None:
    strided = [layout for layout in Layout if not place(torch.ones(3, 4), layout).tensor.is_contiguous()]
    assert strided == [layout for layout in Layout if layout is not Layout.CONTIGUOUS]


def test_a_varied_call_differs_in_numbers_alone() -> None:
    @given(any_call)
    def check(call: Call) -> None:
        other = call.varied()
        assert repr(other) == repr(call)
        first = CONTRACTS[call.op].activations[0]
        assert not torch.equal(other.inputs[first].tensor, call.inputs[first].tensor)

    check()


@given(calls("rotary_embedding", served_space(SPACE)))
def test_a_served_models_rotary_has_heads_of_usual_width_side_by_side_and_keys(call: Call) -> None:
    arguments = call.on(CPU).arguments
    for heads in (arguments["query"], arguments["key"]):
        assert heads.shape[2] in (64, 128)
        assert heads.is_contiguous()
