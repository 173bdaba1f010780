from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from .calls import DTYPES, HALVES, OPS, Call, Layer, assert_rounded_once, exact, for_calls

NORMS = ("rms_norm", "gemma_rms_norm")


def _assert_rms_norm(call: Call, factor: np.ndarray) -> None:
    residual = call.residual
    total = exact(call.x) if residual is None else exact(call.x) + exact(residual)
    wanted = total / np.sqrt(np.mean(total**2, axis=-1, keepdims=True) + call.obj.variance_epsilon) * factor
    y = call()
    if residual is not None:
        y, returned = y
        assert_rounded_once(returned, total, np.abs(total))
    assert_rounded_once(y, wanted, np.abs(wanted))


@for_calls("rms_norm")
def test_rms_norm_is_near_to_exact(call: Call) -> None:
    _assert_rms_norm(call, exact(call.obj.weight))


@for_calls("gemma_rms_norm")
def test_gemma_rms_norm_is_near_to_exact(call: Call) -> None:
    _assert_rms_norm(call, 1.0 + exact(call.obj.weight))


@for_calls("layer_norm")
def test_layer_norm_is_near_to_exact(call: Call) -> None:
    layer, x = call.obj, exact(call.x)
    mean = np.mean(x, axis=-1, keepdims=True)
    spread = np.sqrt(np.mean((x - mean) ** 2, axis=-1, keepdims=True) + layer.variance_epsilon)
    weight = exact(layer.weight) if layer.elementwise_affine else np.ones(x.shape[-1])
    bias = exact(layer.bias) if layer.use_bias else np.zeros(x.shape[-1])
    terms = np.max(np.abs(x), axis=-1, keepdims=True) / spread
    assert_rounded_once(call(), (x - mean) / spread * weight + bias, terms * np.abs(weight) + np.abs(bias))


@for_calls(*NORMS)
def test_only_a_residual_makes_the_result_a_pair(call: Call) -> None:
    assert isinstance(call(), torch.Tensor if call.residual is None else tuple)


@for_calls(*NORMS)
def test_results_are_contiguous(call: Call) -> None:
    result = call()
    assert all(t.is_contiguous() for t in (result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("residual", [None, 0.0, 3e4])
def test_squares_beyond_float16_do_not_overflow(op: str, dtype: torch.dtype, residual: float | None) -> None:
    unit = Layer(weight=torch.full((8,), 1.0 if op == "rms_norm" else 0.0), variance_epsilon=1e-6)
    x = torch.full((2, 8), 3e4, dtype=dtype)
    result = OPS[op](unit, x, None if residual is None else torch.full_like(x, residual))
    y = result if residual is None else result[0]
    assert torch.equal(y, torch.ones_like(x))


@pytest.mark.parametrize("op", NORMS)
def test_the_norm_is_of_the_sum_before_it_is_rounded(op: str) -> None:
    unit = Layer(weight=torch.full((2,), 1.0 if op == "rms_norm" else 0.0), variance_epsilon=0.0)
    x = torch.tensor([[60000.0, 30000.0]], dtype=torch.float16)
    y, total = OPS[op](unit, x, x)
    assert torch.equal(total, torch.tensor([[torch.inf, 60000.0]], dtype=torch.float16))
    assert_rounded_once(y, np.array([[2.0, 1.0]]) / np.sqrt(2.5), np.ones(2))


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_wider_residual_is_added_unrounded_and_returned_in_the_dtype_of_x(op: str, dtype: torch.dtype) -> None:
    unit = Layer(weight=torch.full((2,), 1.0 if op == "rms_norm" else 0.0), variance_epsilon=0.0)
    step = torch.finfo(dtype).eps / 4
    y, total = OPS[op](unit, torch.full((1, 2), -1.0, dtype=dtype), torch.tensor([[1 + step, 1 - step]]))
    assert y.dtype == total.dtype == dtype
    assert torch.equal(y, torch.tensor([[1.0, -1.0]], dtype=dtype))
    assert torch.equal(total, torch.tensor([[step, -step]], dtype=dtype))


@given(op=st.sampled_from([*NORMS, "layer_norm"]), x_dtype=st.sampled_from(DTYPES), dtype=st.sampled_from(DTYPES))
def test_the_dtype_of_x_is_kept_whatever_that_of_the_weights(op: str, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    parameters: dict[str, Any] = {"elementwise_affine": True, "use_bias": True, "bias": torch.ones(6, dtype=dtype)}
    layer = Layer(weight=torch.ones(6, dtype=dtype), variance_epsilon=1e-6, **parameters)
    assert OPS[op](layer, torch.randn(3, 6).to(x_dtype)).dtype == x_dtype


def test_what_a_layer_norm_does_not_use_need_not_be_there() -> None:
    bare = Layer(elementwise_affine=False, use_bias=False, variance_epsilon=0.0)
    assert torch.equal(OPS["layer_norm"](bare, torch.tensor([[-3.0, 3.0]])), torch.tensor([[-1.0, 1.0]]))
