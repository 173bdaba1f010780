"""Layer norm: by flashinfer's kernel where SGLang takes it, by PyTorch's else; both right."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
import torch

from tests.cuda.backend import Backend
from tests.cuda.exact import assert_near, layer_norm, wide

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OP = "layer_norm"


def layer(
    backend: Backend, width: int, dtype: torch.dtype, *, affine: bool = True, bias: bool = True
) -> SimpleNamespace:
    return SimpleNamespace(
        weight=backend.randn(width, dtype=dtype),
        bias=backend.randn(width, dtype=dtype),
        variance_epsilon=1e-5,
        elementwise_affine=affine,
        use_bias=bias,
    )


def check(backend: Backend, obj: SimpleNamespace, x: torch.Tensor) -> None:
    before = wide(x)
    result = backend.call(OP, obj, x)
    assert_near(result, layer_norm(obj, x), 8 * wide(obj.weight).abs() + wide(obj.bias).abs())
    assert (result.dtype, result.device) == (x.dtype, x.device)
    assert torch.equal(wide(x), before)


@pytest.mark.parametrize(("dtype", "weights"), product(DTYPES, DTYPES))
@pytest.mark.parametrize("width", [64, 577, 1024, 4096])
def test_values_are_those_of_float64(backend: Backend, dtype: torch.dtype, weights: torch.dtype, width: int) -> None:
    for rows in (1, 5):
        check(backend, layer(backend, width, weights), backend.randn(rows, width, dtype=dtype))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weight_and_bias_count_only_where_the_layer_says_so(backend: Backend, affine: bool, bias: bool) -> None:
    check(backend, layer(backend, 64, torch.float32, affine=affine, bias=bias), backend.randn(3, 64))


def test_a_layer_without_weights_is_served(backend: Backend) -> None:
    obj = SimpleNamespace(weight=None, bias=None, variance_epsilon=1e-5, elementwise_affine=False, use_bias=False)
    x = backend.randn(3, 64)
    assert_near(backend.call(OP, obj, x), layer_norm(obj, x))


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32])
def test_any_layout_is_served(backend: Backend, weights: torch.dtype) -> None:
    wider, obj = backend.randn(9, 160), layer(backend, 64, weights)
    views = (
        wider[:, 64:128],
        wider[:, 3:67],
        wider[:1, 3:67],
        wider[::2, 16:80],
        wider.t()[:64].contiguous().t(),
        wider[:, :128].view(9, 2, 64),
        wider[0, 3:67],
        backend.randn(9 * 64 + 1)[1:].view(9, 64),
    )
    for x in views:
        check(backend, obj, x)


def test_weights_that_start_anywhere_are_served(backend: Backend) -> None:
    obj = layer(backend, 64, torch.float32)
    obj.weight, obj.bias = (backend.randn(65, dtype=torch.float32)[1:] for _ in range(2))
    check(backend, obj, backend.randn(3, 64))


@pytest.mark.parametrize("shape", [(0, 64), (0, 3, 64), (3, 0, 64)])
def test_an_empty_input_gives_an_empty_result(backend: Backend, shape: tuple[int, ...]) -> None:
    assert backend.call(OP, layer(backend, 64, torch.float32), backend.randn(*shape)).shape == shape


def test_without_flashinfer_the_answers_are_as_right(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.modules[OP], "_FLASHINFER", None)
    check(backend, layer(backend, 64, torch.float32), backend.randn(3, 64))


def test_other_devices_are_refused(backend: Backend) -> None:
    accepts = backend.modules[OP].accepts
    assert accepts(None, torch.empty(2, 64)) == "x is on cpu, which is no CUDA device"
