"""The RMS norms: what they serve, what they overwrite, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.cuda.backend import Backend
from tests.cuda.exact import assert_near, rms_norm, wide

OPS = ("rms_norm", "gemma_rms_norm")
HALVES = (torch.bfloat16, torch.float16)
SHAPES = ((1, 576), (3, 4096), (130, 64), (2, 8192), (5, 100), (4, 577))


def layer(backend: Backend, width: int, dtype: torch.dtype = torch.bfloat16, epsilon: float = 1e-5) -> SimpleNamespace:
    return SimpleNamespace(weight=backend.randn(width, dtype=dtype), variance_epsilon=epsilon)


def check(backend: Backend, op: str, obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """Returns the answer."""
    wanted, weight = rms_norm(op, obj, x, residual), wide(obj.weight)
    result = backend.call(op, obj, x) if residual is None else backend.call(op, obj, x, residual)
    terms = wide(obj.weight).abs() + 1  # gemma's 1 + weight may be near to zero
    if residual is None:
        assert_near(result, wanted, terms * 4)
    else:
        assert_near(result[0], wanted[0], terms * 4)
        assert_near(result[1], wanted[1])
    assert torch.equal(wide(obj.weight), weight)
    return result


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_float64(backend: Backend, op: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    for size in (1.0, 1e-3, 100.0):
        x, residual = (backend.randn(*shape, dtype=dtype, size=size) for _ in range(2))
        before = wide(x)
        check(backend, op, layer(backend, shape[1], dtype), x)
        assert torch.equal(wide(x), before)
        check(backend, op, layer(backend, shape[1], dtype, 1e-6), x, residual)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_with_a_residual_both_inputs_are_overwritten_and_returned(
    backend: Backend, op: str, dtype: torch.dtype
) -> None:
    x, residual = backend.randn(7, 256, dtype=dtype), backend.randn(7, 256, dtype=dtype)
    y, total = check(backend, op, layer(backend, 256, dtype), x, residual)
    assert y is x
    assert total is residual


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(64,), (2, 3, 64), (2, 1, 5, 96)])
def test_all_dimensions_but_the_last_count_rows(backend: Backend, op: str, shape: tuple[int, ...]) -> None:
    obj = layer(backend, shape[-1])
    assert check(backend, op, obj, backend.randn(*shape)).shape == shape
    check(backend, op, obj, backend.randn(*shape), backend.randn(*shape))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(0, 64), (0, 3, 64), (3, 0, 64)])
def test_an_empty_input_gives_an_empty_result(backend: Backend, op: str, shape: tuple[int, ...]) -> None:
    obj = layer(backend, 64)
    assert backend.call(op, obj, backend.randn(*shape)).shape == shape
    assert [t.shape for t in backend.call(op, obj, backend.randn(*shape), backend.randn(*shape))] == [shape, shape]


def views(wider: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of 64 values a row: aligned and unaligned columns, one row of them, every other row, columns as rows."""
    return (
        wider[:, 64:128],
        wider[:, 3:67],
        wider[:1, 8:72],
        wider[:1, 3:67],
        wider[::2, 16:80],
        wider.t()[:64].contiguous().t(),
        wider[:, :128].view(wider.shape[0], 2, 64),
        wider[:, 2:130].unflatten(1, (2, 64)).transpose(0, 1),
    )


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("width", [160, 165])
@pytest.mark.parametrize("view", range(8))
def test_any_layout_is_served(backend: Backend, op: str, width: int, view: int) -> None:
    obj = layer(backend, 64)
    x, residual = (views(backend.randn(9, width))[view] for _ in range(2))
    check(backend, op, obj, x)
    check(backend, op, obj, x, residual)
    check(backend, op, obj, backend.randn(*x.shape), residual)
    check(backend, op, obj, x, backend.randn(*x.shape))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("offset", [1, 2, 8, 16, 64])
def test_what_starts_anywhere_is_served(backend: Backend, op: str, offset: int) -> None:
    def shifted(*shape: int) -> torch.Tensor:
        return backend.randn(torch.Size(shape).numel() + offset)[offset:].view(shape)

    check(backend, op, layer(backend, 96), shifted(5, 96), shifted(5, 96))
    check(backend, op, SimpleNamespace(weight=shifted(96), variance_epsilon=1e-6), backend.randn(5, 96))


@pytest.mark.parametrize("op", OPS)
def test_rows_that_share_memory_are_not_overwritten(backend: Backend, op: str) -> None:
    row, residual = backend.randn(1, 64), backend.randn(3, 64)
    before = wide(row)
    check(backend, op, layer(backend, 64), row.expand(3, 64), residual)
    assert torch.equal(wide(row), before)


@pytest.mark.parametrize("op", OPS)
def test_x_may_be_its_own_residual(backend: Backend, op: str) -> None:
    x = backend.randn(3, 64)
    check(backend, op, layer(backend, 64), x, x)


@pytest.mark.parametrize("op", OPS)
def test_a_changed_weight_counts(backend: Backend, op: str) -> None:
    obj, x = layer(backend, 64), backend.randn(3, 64)
    check(backend, op, obj, x)
    obj.weight.mul_(3)
    check(backend, op, obj, x)


@pytest.mark.parametrize("op", OPS)
def test_the_parameter_of_a_module_is_read_and_no_gradient_is_kept(backend: Backend, op: str) -> None:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(backend.randn(64))
    module.variance_epsilon = 1e-6
    assert not check(backend, op, module, backend.randn(3, 64)).requires_grad


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_weight_of_another_dtype_is_refused(backend: Backend, op: str, dtype: torch.dtype) -> None:
    answer = backend.accepts(op, layer(backend, 64, torch.float32), backend.randn(2, 64, dtype=dtype))
    assert answer == f"the weight is in torch.float32, and the kernel would read it as x's {dtype}"


@pytest.mark.parametrize("op", OPS)
def test_a_weight_with_gaps_is_refused(backend: Backend, op: str) -> None:
    obj = SimpleNamespace(weight=backend.randn(128)[::2], variance_epsilon=1e-6)
    answer = backend.accepts(op, obj, backend.randn(5, 64))
    assert answer == "the weight's values lie 2 apart, and the kernel reads them side by side"


@pytest.mark.parametrize("op", OPS)
def test_a_residual_of_another_dtype_is_refused(backend: Backend, op: str) -> None:
    residual = backend.randn(2, 64, dtype=torch.float32)
    answer = backend.accepts(op, layer(backend, 64), backend.randn(2, 64), residual)
    assert answer == "the residual is in torch.float32, and the kernel would read it as x's torch.bfloat16"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_refused(backend: Backend, op: str, dtype: torch.dtype) -> None:
    answer = backend.accepts(op, layer(backend, 64, dtype), backend.randn(2, 64, dtype=dtype))
    assert answer == f"x is in {dtype}, and the kernel takes half precision"


def test_other_devices_are_refused(backend: Backend) -> None:
    accepts, obj = backend.modules["normalization"].accepts, layer(backend, 64)
    assert accepts(obj, torch.empty(2, 64)) == "x is on cpu, which is no CUDA device"
