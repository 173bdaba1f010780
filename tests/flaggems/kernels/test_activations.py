from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sglang_fl_flaggems.kernels.activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul
from tests.flaggems.device import DEVICE, on_device
from tests.flaggems.kernels.nearness import assert_near

pytestmark = on_device

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [(1, F32), (64, F16), (577, BF16), (577, F32), (5000, BF16)]

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[Any, Activation] = {
    silu_and_mul: F.silu,
    gelu_and_mul: F.gelu,
    gelu_tanh_and_mul: partial(F.gelu, approximate="tanh"),
}


@pytest.mark.parametrize("op", ACTIVATIONS)
@pytest.mark.parametrize(("d", "dtype"), CASES)
@pytest.mark.parametrize("wider_by", [0, 3])
def test_an_activation_is_near_to_exact(op: Any, d: int, dtype: torch.dtype, wider_by: int) -> None:
    x = torch.randn(3, 2 * d + wider_by, device=DEVICE, dtype=dtype)[:, : 2 * d]
    gate, up = x.double().chunk(2, dim=-1)
    y = op(None, x)
    assert y.is_contiguous()
    assert_near(y, ACTIVATIONS[op](gate) * up)


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_many_short_rows_share_programs(op: Any) -> None:
    x = torch.randn(5, 205, 6, device=DEVICE)
    gate, up = x.double().chunk(2, dim=-1)
    assert_near(op(None, x), ACTIVATIONS[op](gate) * up)


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_large_gates_neither_overflow_nor_are_nan(op: Any) -> None:
    gate = torch.tensor([[-3e4, -200.0, -20.0, 0.0, 20.0, 200.0, 3e4]], device=DEVICE)
    y = op(None, torch.cat((gate, torch.ones_like(gate)), dim=-1))
    assert_near(y[:, 3:], gate[:, 3:].double())
    assert torch.all(y[:, :3].abs() < 1e-7)


@pytest.mark.parametrize("op", ACTIVATIONS)
@pytest.mark.parametrize("width", [1, 7])
def test_a_row_without_two_halves_is_refused(op: Any, width: int) -> None:
    with pytest.raises(ValueError, match=f"a row of {width} has no two halves"):
        op(None, torch.ones(2, width, device=DEVICE))


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_integers_are_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=r"torch\.int32"):
        op(None, torch.ones(2, 8, device=DEVICE, dtype=torch.int32))
