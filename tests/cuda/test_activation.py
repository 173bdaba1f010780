"""The gated activations: what they serve, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda.backend import Backend
from tests.cuda.exact import act_and_mul, assert_near, wide

OPS = ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check(backend: Backend, op: str, x: torch.Tensor) -> None:
    before = wide(x)
    result = backend.call(op, None, x)
    gate, up = before.chunk(2, dim=-1)
    assert_near(result, act_and_mul(op, x), (gate * up).abs())
    assert (result.dtype, result.device, result.is_contiguous()) == (x.dtype, x.device, True)
    assert torch.equal(wide(x), before)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_float64(backend: Backend, op: str, dtype: torch.dtype) -> None:
    for rows, width, size in ((1, 64, 1.0), (3, 3072, 1.0), (257, 1536, 30.0), (5, 28672, 1e-3)):
        check(backend, op, backend.randn(rows, width, dtype=dtype, size=size))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_launch_gives_the_bits_of_the_op_that_dynamo_and_the_profiler_see(
    backend: Backend, op: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [backend.randn(*shape, dtype=dtype) for shape in ((1, 64), (257, 1536), (2, 3, 64), (9, 28672))]
    launched = [backend.call(op, None, x) for x in calls]
    monkeypatch.setattr(backend.modules["activation"], "ops_are_seen", lambda: True)
    assert all(torch.equal(backend.call(op, None, x), bits) for x, bits in zip(calls, launched, strict=True))


@pytest.mark.parametrize("op", OPS)
def test_where_sglang_chooses_the_kernel_it_is_called_itself(
    backend: Backend, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.modules["activation"], "_launcher", None)
    check(backend, op, backend.randn(257, 1536))
    assert backend.call(op, None, backend.randn(0, 64)).shape == (0, 32)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(64,), (2, 3, 64), (2, 1, 5, 96)])
def test_all_dimensions_but_the_last_count_rows(backend: Backend, op: str, shape: tuple[int, ...]) -> None:
    check(backend, op, backend.randn(*shape))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(0, 64), (0, 3, 64), (3, 0, 64), (4, 0)])
def test_an_empty_input_gives_an_empty_result(backend: Backend, op: str, shape: tuple[int, ...]) -> None:
    result = backend.call(op, None, backend.randn(*shape))
    assert result.shape == (*shape[:-1], shape[-1] // 2)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_is_served(backend: Backend, op: str, dtype: torch.dtype) -> None:
    wider = backend.randn(7, 160, dtype=dtype)
    for x in (wider[:, 3:131], wider[:1, 3:131], wider[::2, 16:144], wider.t()[:160:5, :].contiguous().t()[:, :32]):
        check(backend, op, x)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("offset", [1, 2, 8, 16])
def test_an_input_that_starts_anywhere_is_served(backend: Backend, op: str, offset: int) -> None:
    check(backend, op, backend.randn(8 * 64 + offset)[offset:].view(8, 64))


@pytest.mark.parametrize("op", OPS)
def test_results_are_new_each_time(backend: Backend, op: str) -> None:
    x = backend.randn(4, 128)
    first = backend.call(op, None, x)
    kept = first.clone()
    backend.call(op, None, backend.randn(4, 128))
    assert torch.equal(first, kept)
    assert torch.equal(backend.call(op, None, x), kept)


@given(width=st.integers(0, 600), dtype=st.sampled_from(DTYPES))
def test_halves_of_whole_vectors_are_accepted_and_no_others(backend: Backend, width: int, dtype: torch.dtype) -> None:
    answer = backend.accepts("silu_and_mul", None, torch.empty(2, width, dtype=dtype, device=backend.device))
    if width * dtype.itemsize % 32 == 0:
        assert answer is True
    else:
        assert answer == f"half of {width} values in {dtype} is no multiple of 16 bytes"


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int8])
def test_other_dtypes_are_refused(backend: Backend, dtype: torch.dtype) -> None:
    answer = backend.accepts("silu_and_mul", None, torch.empty(2, 64, dtype=dtype, device=backend.device))
    assert answer == f"x is in {dtype}, and the kernel computes in half precision and float32"


def test_other_devices_are_refused(backend: Backend) -> None:
    accepts = backend.modules["activation"].accepts
    assert accepts(None, torch.empty(2, 64)) == "x is on cpu, which is no CUDA device"
    assert accepts(None, torch.empty(2, 64, device="meta")) == "x is on meta, which is no CUDA device"
