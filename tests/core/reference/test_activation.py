from __future__ import annotations

import numpy as np
import pytest
import torch

from .calls import DTYPES, OPS, Call, Layer, assert_rounded_once, erfc, exact, for_calls


def _halves(call: Call) -> tuple[np.ndarray, np.ndarray]:
    gate, up = np.split(exact(call.x), 2, axis=-1)
    return gate, up


@for_calls("silu_and_mul")
def test_silu_and_mul_is_near_to_exact(call: Call) -> None:
    gate, up = _halves(call)
    wanted = gate / (1 + np.exp(-gate)) * up
    # The second term: fp32 has no sigmoid of less than 1e-38.
    assert_rounded_once(call(), wanted, np.abs(wanted) + 1e-32 * np.abs(gate * up))


@for_calls("gelu_and_mul")
def test_gelu_and_mul_is_near_to_exact(call: Call) -> None:
    gate, up = _halves(call)
    wanted = gate * erfc(-gate / np.sqrt(2)) / 2 * up
    assert_rounded_once(call(), wanted, np.abs(gate * up))


@for_calls("gelu_tanh_and_mul")
def test_gelu_tanh_and_mul_is_near_to_exact(call: Call) -> None:
    gate, up = _halves(call)
    wanted = gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) / 2 * up
    assert_rounded_once(call(), wanted, np.abs(gate * up))


@pytest.mark.parametrize("op", ["silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_an_odd_row_is_refused_rather_than_broadcast(op: str, width: int) -> None:
    with pytest.raises(RuntimeError, match="split"):
        OPS[op](Layer(), torch.ones(2, width))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_rounded_after_the_multiplication(dtype: torch.dtype) -> None:
    # silu(-20) = -4.1e-8 is less than half of float16's smallest number, but 1e4 times it is not.
    result = OPS["silu_and_mul"](Layer(), torch.tensor([-20.0, 1e4], dtype=dtype))
    wanted = -20 / (1 + np.exp(20)) * exact(torch.tensor(1e4, dtype=dtype))
    assert_rounded_once(result, np.array([wanted]), np.array([-wanted]))
