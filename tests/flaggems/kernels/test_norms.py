from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl_flaggems.kernels.layer_norm import layer_norm
from sglang_fl_flaggems.kernels.rms_norm import gemma_rms_norm, rms_norm
from tests.flaggems.device import DEVICE, on_device
from tests.flaggems.kernels.nearness import assert_near

pytestmark = on_device

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [(1, F32), (64, F16), (577, BF16), (577, F32), (4096, BF16), (7169, F16), (40000, F32), (40000, BF16)]
"""One element, a narrow row, odd widths, a common one, one that does not fit in registers."""

FACTORS = {rms_norm: 0.0, gemma_rms_norm: 1.0}


def layer(n: int, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    weight, bias = (torch.randn(n, device=DEVICE, dtype=dtype) for _ in range(2))
    return SimpleNamespace(weight=weight, bias=bias, variance_epsilon=1e-6, elementwise_affine=True, use_bias=True)


def rows(tokens: int, n: int, dtype: torch.dtype, wider_by: int = 0) -> torch.Tensor:
    """Random rows; with ``wider_by`` they are the middle of rows that are wider by that."""
    start = wider_by // 2
    return torch.randn(tokens, n + wider_by, device=DEVICE, dtype=dtype)[:, start : start + n]


def exact_rms_norm(total: torch.Tensor, obj: Any, offset: float) -> torch.Tensor:
    scale = torch.rsqrt(total.square().mean(-1, keepdim=True) + obj.variance_epsilon)
    return total * scale * (offset + obj.weight.double())


def exact_layer_norm(x: torch.Tensor) -> torch.Tensor:
    centred = x.double() - x.double().mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("op", FACTORS)
@pytest.mark.parametrize(("n", "dtype"), CASES)
@pytest.mark.parametrize("wider_by", [0, 3])
def test_a_norm_with_a_residual_is_near_to_exact_and_in_place(
    op: Any, n: int, dtype: torch.dtype, wider_by: int
) -> None:
    obj, x, residual = layer(n, dtype), rows(3, n, dtype, wider_by), rows(3, n, dtype)
    total = x.double() + residual.double()
    y, returned = op(obj, x, residual)
    assert y is x
    assert returned is residual
    assert_near(residual, total)
    assert_near(x, exact_rms_norm(total, obj, FACTORS[op]))


@pytest.mark.parametrize("op", FACTORS)
@pytest.mark.parametrize(("n", "dtype"), CASES)
def test_a_norm_without_a_residual_is_near_to_exact_and_new(op: Any, n: int, dtype: torch.dtype) -> None:
    obj, x = layer(n), rows(3, n, dtype)
    before = x.clone()
    y = op(obj, x)
    assert torch.equal(x, before)
    assert y.is_contiguous()
    assert_near(y, exact_rms_norm(x.double(), obj, FACTORS[op]))


@pytest.mark.parametrize(("n", "dtype"), CASES)
def test_a_layer_norm_is_near_to_exact(n: int, dtype: torch.dtype) -> None:
    obj, x = layer(n, dtype), rows(3, n, dtype)
    assert_near(layer_norm(obj, x), exact_layer_norm(x) * obj.weight.double() + obj.bias.double())


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_only_the_vectors_that_count_are_read(affine: bool, biased: bool) -> None:
    obj, x = layer(64), rows(3, 64, torch.float32)
    obj.elementwise_affine, obj.use_bias = affine, biased
    weight, bias = (obj.weight.double() if affine else 1.0), (obj.bias.double() if biased else 0.0)
    assert_near(layer_norm(obj, x), exact_layer_norm(x) * weight + bias)


def test_a_large_mean_costs_a_layer_norm_no_precision() -> None:
    x = 1000 + rows(2, 512, torch.float32)
    obj = layer(512)
    wanted = exact_layer_norm(x) * obj.weight + obj.bias
    assert (layer_norm(obj, x).double() - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("op", FACTORS)
def test_many_short_rows_share_programs(op: Any) -> None:
    obj, x = layer(7), rows(1025, 7, torch.float32)
    assert_near(op(obj, x), exact_rms_norm(x.double(), obj, FACTORS[op]))


@pytest.mark.parametrize("op", FACTORS)
def test_rows_that_share_memory_are_not_overwritten(op: Any) -> None:
    obj, x, residual = layer(64), rows(1, 64, torch.float32).expand(3, 64), rows(3, 64, torch.float32)
    before, total = x.clone(), x.double() + residual.double()
    y, returned = op(obj, x, residual)
    assert torch.equal(x, before)
    assert_near(y, exact_rms_norm(total, obj, FACTORS[op]))
    assert_near(returned, total)


@pytest.mark.parametrize("op", FACTORS)
def test_rows_that_are_not_one_stride_apart_are_copied(op: Any) -> None:
    obj = layer(64)
    x, residual = (torch.randn(4, 3, 64, device=DEVICE).transpose(0, 1) for _ in range(2))
    total = x.double() + residual.double()
    y, returned = op(obj, x, residual)
    assert_near(y, exact_rms_norm(total, obj, FACTORS[op]))
    assert_near(returned, total)


@pytest.mark.parametrize("op", FACTORS)
@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_residual_of_another_dtype_is_added_unrounded(op: Any, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    obj, x, residual = layer(64), rows(3, 64, dtypes[0]), rows(3, 64, dtypes[1])
    before, total = residual.clone(), x.double() + residual.double()
    y, returned = op(obj, x, residual)
    assert torch.equal(residual, before)
    assert y.dtype == returned.dtype == dtypes[0]
    assert_near(returned, total)
    assert_near(y, exact_rms_norm(total, obj, FACTORS[op]))


@pytest.mark.parametrize("op", FACTORS)
def test_x_may_be_its_own_residual(op: Any) -> None:
    obj, x = layer(64), rows(3, 64, torch.float32)
    total = 2 * x.double()
    y, returned = op(obj, x, x)
    assert_near(y, exact_rms_norm(total, obj, FACTORS[op]))
    assert_near(returned, total)


def test_a_factor_near_one_is_not_rounded_to_the_dtype_of_the_weight() -> None:
    obj = SimpleNamespace(weight=torch.full((8,), 2.0**-9, device=DEVICE, dtype=torch.bfloat16), variance_epsilon=0.0)
    y = gemma_rms_norm(obj, torch.ones(1, 8, device=DEVICE))
    assert torch.equal(y, torch.full_like(y, 1 + 2.0**-9))


@pytest.mark.parametrize("op", [*FACTORS, layer_norm])
def test_a_weight_of_another_width_is_refused(op: Any) -> None:
    with pytest.raises(ValueError, match="4 weights for 8 columns"):
        op(layer(4), rows(2, 8, torch.float32))


@pytest.mark.parametrize("op", FACTORS)
def test_a_residual_of_another_shape_is_refused(op: Any) -> None:
    with pytest.raises(ValueError, match=r"\(2, 8\)"):
        op(layer(8), rows(3, 8, torch.float32), rows(2, 8, torch.float32))


@pytest.mark.parametrize("op", [*FACTORS, layer_norm])
def test_integers_are_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=r"torch\.int32"):
        op(layer(8), torch.ones(2, 8, device=DEVICE, dtype=torch.int32))


@pytest.mark.parametrize("op", FACTORS)
def test_no_rows_and_a_residual_of_another_dtype_give_the_dtype_of_x(op: Any) -> None:
    y, total = op(layer(8), rows(0, 8, torch.float16), rows(0, 8, torch.float32))
    assert y.dtype == total.dtype == torch.float16
