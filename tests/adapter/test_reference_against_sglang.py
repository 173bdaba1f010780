"""The reference ops against the ``forward_native`` of SGLang's own layers.

In fp32, and wherever SGLang itself computes in fp32, the bits are the same. Where it rounds to half precision on the
way, the reference is the nearer to exact, and the two differ by no more than SGLang's roundings explain.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.reference.activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul
from sglang_fl.reference.normalization import gemma_rms_norm, layer_norm, rms_norm
from sglang_fl.reference.rotary import rotary_embedding

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
HEAD_SIZE = 64


@pytest.fixture(autouse=True)
def _fixed_values() -> Iterator[None]:
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(20)
        yield


def _random_parameters(layer: Any, dtype: torch.dtype = torch.float32) -> Any:
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter).to(dtype)
    return layer


def _inputs(dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """No rows, one, several, two dimensions of them, an odd half; each also as a slice of wider rows."""
    for shape in ((0, 96), (1, 96), (7, 96), (2, 3, 96), (5, 34)):
        yield torch.randn(shape).to(dtype)
        yield torch.randn(*shape[:-1], shape[-1] + 8).to(dtype)[..., : shape[-1]]


def _assert_same_bits(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def _assert_same_but_for(roundings: int, got: torch.Tensor, wanted: torch.Tensor, size: torch.Tensor) -> None:
    """Equal in fp32; in half precision, off by at most so many roundings of numbers of ``size``."""
    allowed = 0.0 if got.dtype == torch.float32 else roundings * torch.finfo(got.dtype).eps / 2
    smallest = 0.0 if got.dtype == torch.float32 else torch.finfo(got.dtype).smallest_normal
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert torch.all((got.double() - wanted.double()).abs() <= allowed * size.double().abs() + smallest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gated_activations(layers: SimpleNamespace, dtype: torch.dtype) -> None:
    pairs = [
        (silu_and_mul, layers.SiluAndMul()),
        (gelu_and_mul, layers.GeluAndMul(approximate="none")),
        (gelu_tanh_and_mul, layers.GeluAndMul(approximate="tanh")),
    ]
    for x, (op, layer) in itertools.product(_inputs(dtype), pairs):
        gate, up = x.double().chunk(2, dim=-1)
        _assert_same_but_for(3, op(layer, x), layer.forward_native(x), gate * up)


@pytest.mark.parametrize("weights", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rms_norm(layers: SimpleNamespace, dtype: torch.dtype, weights: torch.dtype) -> None:
    for x, residual in zip(_inputs(dtype), _inputs(dtype), strict=True):
        layer = _random_parameters(layers.RMSNorm(x.shape[-1], eps=1e-5), weights)
        _assert_same_bits(rms_norm(layer, x), layer.forward_native(x))
        _assert_same_bits(rms_norm(layer, x, residual), layer.forward_native(x, residual))


def test_rms_norm_of_transposed_rows(layers: SimpleNamespace) -> None:
    layer = _random_parameters(layers.RMSNorm(48))
    x, residual = torch.randn(48, 31).t(), torch.randn(48, 31).t()
    _assert_same_bits(rms_norm(layer, x), layer.forward_native(x))
    _assert_same_bits(rms_norm(layer, x, residual), layer.forward_native(x, residual))


def test_rms_norm_without_a_weight(layers: SimpleNamespace) -> None:
    layer, x = layers.RMSNorm(96, has_weight=False), torch.randn(3, 96)
    _assert_same_bits(rms_norm(layer, x), layer.forward_native(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rms_norm_with_a_wider_residual(layers: SimpleNamespace, dtype: torch.dtype) -> None:
    layer = _random_parameters(layers.RMSNorm(96))
    x, residual = torch.randn(3, 96).to(dtype), torch.randn(3, 96)
    _assert_same_bits(rms_norm(layer, x, residual), layer.forward_native(x, residual))


@pytest.mark.parametrize("name", ["GemmaRMSNorm", "Gemma3RMSNorm"])
@pytest.mark.parametrize("weights", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gemma_rms_norm(layers: SimpleNamespace, name: str, dtype: torch.dtype, weights: torch.dtype) -> None:
    for x, residual in zip(_inputs(dtype), _inputs(dtype), strict=True):
        layer = _random_parameters(getattr(layers, name)(x.shape[-1], eps=1e-5), weights)
        obj = SimpleNamespace(weight=layer.weight, variance_epsilon=1e-5)
        _assert_same_bits(gemma_rms_norm(obj, x), layer.forward_native(x))
        y, total = gemma_rms_norm(obj, x, residual)
        native_y, native_total = layer.forward_native(x, residual)
        _assert_same_bits(total, native_total)
        _assert_same_but_for(3, y, native_y, native_y)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("elementwise_affine", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_norm(layers: SimpleNamespace, dtype: torch.dtype, elementwise_affine: bool, bias: bool) -> None:
    options = {"elementwise_affine": elementwise_affine, "bias": bias}
    for x in _inputs(dtype):
        layer = _random_parameters(layers.LayerNorm(x.shape[-1], **options))
        _assert_same_bits(layer_norm(layer, x), layer.forward_native(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_norm_of_a_layer_in_its_own_dtype(layers: SimpleNamespace, dtype: torch.dtype) -> None:
    layer = _random_parameters(layers.LayerNorm(96, dtype=dtype), dtype)
    x = torch.randn(5, 96).to(dtype)
    native = layer.forward_native(x)
    _assert_same_but_for(2, layer_norm(layer, x), native, native.abs() + layer.bias.abs())


def _plain(layers: SimpleNamespace, **options: Any) -> Any:
    return layers.RotaryEmbedding(**options)


def _linear(layers: SimpleNamespace, **options: Any) -> Any:
    return layers.LinearScalingRotaryEmbedding(scaling_factors=[1.0, 4.0], **options)


def _llama3(layers: SimpleNamespace, **options: Any) -> Any:
    factors = {"scaling_factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "orig_max_position": 512}
    return layers.Llama3RotaryEmbedding(**factors, **options)


def _yarn(layers: SimpleNamespace, **options: Any) -> Any:
    from sglang.srt.layers.rotary_embedding.yarn import YaRNScalingRotaryEmbedding

    return YaRNScalingRotaryEmbedding(scaling_factor=4.0, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_neox_style", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("rotary_dim", [HEAD_SIZE, 24], ids=["whole", "partial"])
@pytest.mark.parametrize("scaling", [_plain, _linear, _llama3, _yarn])
def test_rotary_embedding(
    layers: SimpleNamespace,
    scaling: Any,
    rotary_dim: int,
    is_neox_style: bool,
    dtype: torch.dtype,
) -> None:
    options = {"max_position_embeddings": 2048, "base": 10000, "is_neox_style": is_neox_style, "dtype": dtype}
    layer = scaling(layers, head_size=HEAD_SIZE, rotary_dim=rotary_dim, **options)
    position_ids = torch.randint(len(layer.cos_sin_cache), (9,))
    query, key, _ = torch.randn(9, 7, HEAD_SIZE).to(dtype).split((4, 2, 1), dim=1)
    native = layer.forward_native(position_ids, query.flatten(1), key.flatten(1))
    rotated = rotary_embedding(
        layer,
        *(rows[..., :rotary_dim] for rows in (query, key)),
        *layer.cos_sin_cache.chunk(2, dim=-1),
        position_ids,
        rotary_interleaved=not is_neox_style,
    )
    for got, wanted, given in zip(rotated, native, (query, key), strict=True):
        size = given.double().norm(dim=-1, keepdim=True)
        _assert_same_but_for(4, got, wanted.view_as(given)[..., :rotary_dim], size)
