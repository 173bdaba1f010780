"""The kit's formulae against torch's own float64 functions: two ways to the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from sglang_fl.ops import CONTRACTS, TOLERANCE
from sglang_fl.testing.calls import calls
from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.placed import place
from sglang_fl.testing.calls.space import whole_space
from sglang_fl.testing.exact import exact
from sglang_fl.testing.nearness import distance

SPACE = whole_space((torch.float32,), torch.device("cpu"))


def of_torch(call: Call) -> list[torch.Tensor]:
    given_to = {name: value.tensor.double() for name, value in call.placed()}
    return TORCH[call.op](given_to, call)


def act(function: Callable[..., torch.Tensor], **options: Any) -> Callable[..., list[torch.Tensor]]:
    def of(tensors: dict[str, torch.Tensor], call: Call) -> list[torch.Tensor]:
        gate, up = tensors["x"].chunk(2, dim=-1)
        return [function(gate, **options) * up]

    return of


def rms(offset: int) -> Callable[..., list[torch.Tensor]]:
    def of(tensors: dict[str, torch.Tensor], call: Call) -> list[torch.Tensor]:
        total = tensors["x"] + tensors.get("residual", 0)
        weight, epsilon = tensors["obj.weight"] + offset, call.layer["variance_epsilon"]
        normed = F.rms_norm(total, total.shape[-1:], weight, epsilon)
        return [normed, total] if "residual" in tensors else [normed]

    return of


def layer(tensors: dict[str, torch.Tensor], call: Call) -> list[torch.Tensor]:
    weight = tensors["obj.weight"] if call.layer["elementwise_affine"] else None
    bias = tensors["obj.bias"] if call.layer["use_bias"] else None
    x = tensors["x"]
    return [F.layer_norm(x, x.shape[-1:], weight, bias, call.layer["variance_epsilon"])]


def rotary(tensors: dict[str, torch.Tensor], call: Call) -> list[torch.Tensor]:
    """By complex numbers."""
    turn = torch.complex(tensors["cos"], tensors["sin"])[call.inputs["position_ids"].tensor.long()].unsqueeze(1)

    def turned(rows: torch.Tensor) -> torch.Tensor:
        split = (-1, 2) if call.inputs["rotary_interleaved"] else (2, -1)
        pairs = rows.unflatten(-1, split)
        pairs = pairs if call.inputs["rotary_interleaved"] else pairs.transpose(-1, -2)
        answer = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
        return (answer if call.inputs["rotary_interleaved"] else answer.transpose(-1, -2)).flatten(-2)

    return [turned(tensors[name]) for name in ("query", "key") if name in tensors]


TORCH: dict[str, Callable[..., list[torch.Tensor]]] = {
    "silu_and_mul": act(F.silu),
    "gelu_and_mul": act(F.gelu),
    "gelu_tanh_and_mul": act(F.gelu, approximate="tanh"),
    "rms_norm": rms(0),
    "gemma_rms_norm": rms(1),
    "layer_norm": layer,
    "rotary_embedding": rotary,
}


@pytest.mark.parametrize("op", CONTRACTS)
def test_the_formulae_are_those_of_torch(op: str) -> None:
    @given(calls(op, SPACE))
    def agree(call: Call) -> None:
        results = [one for one in exact(call) if one is not None]
        for got, wanted in zip(results, of_torch(call), strict=True):
            allowed = 1e-9 * wanted.abs() + 1e-14 * got.terms + 1e-12
            assert bool(((got.values - wanted).abs() <= allowed).all()), (got.values, wanted)

    agree()


def test_float32_arithmetic_is_near_where_an_element_and_the_mean_of_its_row_are_near_to_zero() -> None:
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 1e-8
    x[:, 1] -= x.sum(-1)
    placed = {"weight": place(torch.ones(8)), "bias": place(torch.zeros(8))}
    layer = {**placed, "elementwise_affine": False, "use_bias": False, "variance_epsilon": 1e-6}
    (wanted,) = exact(Call("layer_norm", layer, {"x": place(x)}))
    assert wanted is not None
    assert distance(F.layer_norm(x, (8,), eps=1e-6), wanted, TOLERANCE) is None
