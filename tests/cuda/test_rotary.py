"""The rotary embedding: what it serves, what it leaves alone, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.cuda.backend import Backend
from tests.cuda.exact import assert_near, rotated

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OP = "rotary_embedding"
MAX_POSITION = 4096
NOT_THE_LAYERS = "cos and sin are not the halves of the layer's cos_sin_cache, or not where the kernel can read it"


def layer(backend: Backend, head_size: int, rotary_dim: int, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """As SGLang builds one, but for ``use_fallback_kernel``."""
    inverse = 10000.0 ** (-torch.arange(0, rotary_dim, 2).double() / rotary_dim)
    angles = torch.arange(MAX_POSITION).double().outer(inverse)
    cache = backend.randn(MAX_POSITION, rotary_dim, dtype=dtype).copy_(torch.cat((angles.cos(), angles.sin()), -1))
    return SimpleNamespace(head_size=head_size, rotary_dim=rotary_dim, cos_sin_cache=cache)


def positions(backend: Backend, tokens: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    numbers = torch.randint(MAX_POSITION, (tokens,))
    numbers[:1], numbers[-1:] = 0, MAX_POSITION - 1
    return numbers.to(backend.device, dtype)


def qkv(
    backend: Backend, tokens: int, heads: int, key_heads: int, head_size: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query and key by head, as views of a projection's rows; and the rows."""
    rows = backend.randn(tokens, (heads + 2 * key_heads) * head_size, dtype=dtype)
    query, key, _ = rows.unflatten(1, (-1, head_size)).split((heads, key_heads, key_heads), dim=1)
    return query, key, rows


def call(backend: Backend, obj: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any) -> Any:
    return backend.call(OP, obj, query, key, *obj.cos_sin_cache.chunk(2, dim=-1), *rest)


def accepts(backend: Backend, obj: Any, query: torch.Tensor, key: torch.Tensor | None) -> Any:
    where = torch.zeros(query.shape[0], dtype=torch.int64, device=backend.device)
    return backend.accepts(OP, obj, query, key, *obj.cos_sin_cache.chunk(2, dim=-1), where)


def check(
    backend: Backend,
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    where: torch.Tensor,
    interleaved: bool = False,
    roundings: int | None = None,
) -> None:
    cos, sin = (table.clone() for table in obj.cos_sin_cache.chunk(2, dim=-1))
    wanted = [rotated(heads, cos, sin, where, interleaved) for heads in (query, key)]
    results = call(backend, obj, query, key, where, interleaved)
    assert results[0] is query and results[1] is key
    for got, (values, terms) in zip(results, wanted, strict=True):
        assert_near(got, values, terms, roundings)


@pytest.mark.parametrize(
    ("head_size", "dtype", "interleaved"),
    [*((64, dtype, False) for dtype in DTYPES), (64, torch.bfloat16, True), (128, torch.bfloat16, False)],
)
def test_values_are_those_of_float64(backend: Backend, head_size: int, dtype: torch.dtype, interleaved: bool) -> None:
    obj = layer(backend, head_size, head_size)
    for tokens, heads, key_heads in ((1, 9, 3), (5, 4, 4), (300, 8, 1), (2, 1, 1)):
        query, key, _ = qkv(backend, tokens, heads, key_heads, head_size, dtype)
        check(backend, obj, query, key, positions(backend, tokens), interleaved)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rotary_dim", [32, 64])
def test_a_launch_gives_the_bits_of_the_op_that_dynamo_and_the_profiler_see(
    backend: Backend, dtype: torch.dtype, interleaved: bool, rotary_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj, where = layer(backend, 64, rotary_dim), positions(backend, 33)
    heads = [part[..., :rotary_dim] for part in qkv(backend, 33, 9, 3, 64, dtype)[:2]]
    copies = [part.clone(memory_format=torch.preserve_format) for part in heads]
    launched = call(backend, obj, *heads, where, interleaved)
    monkeypatch.setattr(backend.modules["rotary"], "ops_are_seen", lambda: True)
    traced = call(backend, obj, *copies, where, interleaved)
    assert all(torch.equal(one, other) for one, other in zip(launched, traced, strict=True))


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_part_of_each_head_turns_and_what_lies_beside_it_stays(backend: Backend, interleaved: bool) -> None:
    query, key, rows = qkv(backend, 7, 4, 2, 64)
    before = rows.unflatten(1, (-1, 64)).clone()
    obj = layer(backend, 64, 32)
    check(backend, obj, query[..., :32], key[..., :32], positions(backend, 7), interleaved)
    after = rows.unflatten(1, (-1, 64))
    assert torch.equal(after[..., 32:], before[..., 32:])
    assert torch.equal(after[:, 6:], before[:, 6:])


def test_out_of_place_the_inputs_stay(backend: Backend) -> None:
    obj, where = layer(backend, 64, 64), positions(backend, 5)
    query, key, rows = qkv(backend, 5, 4, 2, 64)
    before = rows.clone()
    results = call(backend, obj, query, key, where, False, False)
    assert torch.equal(rows, before)
    cos, sin = obj.cos_sin_cache.chunk(2, dim=-1)
    for got, heads in zip(results, (query, key), strict=True):
        values, terms = rotated(heads, cos, sin, where, False)
        assert_near(got, values, terms)


@pytest.mark.parametrize("where", ["int32", "every other", "int16"])
def test_positions_of_any_integers_and_strides_are_served(backend: Backend, where: str) -> None:
    every = positions(backend, 10)
    chosen = {"int32": every[:5].int(), "every other": every[::2], "int16": every[:5].short()}[where]
    query, key, _ = qkv(backend, 5, 4, 2, 64)
    check(backend, layer(backend, 64, 64), query, key, chosen)


def test_no_tokens_are_served(backend: Backend) -> None:
    query, key, _ = qkv(backend, 0, 4, 2, 64)
    results = call(backend, layer(backend, 64, 64), query, key, positions(backend, 0))
    assert [tensor.shape for tensor in results] == [query.shape, key.shape]


def test_calls_one_after_another_rotate_further(backend: Backend) -> None:
    obj, where = layer(backend, 64, 64), positions(backend, 3)
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    for _ in range(3):
        check(backend, obj, query, key, where)


def test_a_cache_that_the_layer_replaced_is_read(backend: Backend) -> None:
    obj, where = layer(backend, 64, 64), positions(backend, 3)
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    check(backend, obj, query, key, where)
    obj.cos_sin_cache = obj.cos_sin_cache.flip(0).contiguous()
    check(backend, obj, query, key, where)


def test_the_buffer_of_a_module_is_read(backend: Backend) -> None:
    module = torch.nn.Module()
    module.head_size = module.rotary_dim = 64
    module.register_buffer("cos_sin_cache", layer(backend, 64, 64).cos_sin_cache)
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    check(backend, module, query, key, positions(backend, 3))
    assert list(module.state_dict()) == ["cos_sin_cache"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_other_heads_of_sglangs_own_layers_turn_in_their_dtype(
    backend: Backend, dtype: torch.dtype, interleaved: bool
) -> None:
    obj = layer(backend, 96, 96)
    obj.use_fallback_kernel = True
    for _ in range(2):
        query, key, _ = qkv(backend, 5, 4, 2, 96, dtype)
        check(backend, obj, query, key, positions(backend, 5, torch.int32), interleaved, roundings=3)
        assert obj.cos_sin_cache.dtype is dtype  # as SGLang has its layer keep it


def test_other_heads_are_refused_to_all_others(backend: Backend) -> None:
    query, key, _ = qkv(backend, 3, 2, 2, 96)
    obj = layer(backend, 96, 96)
    reason = "the kernel for heads of 96 computes in torch.bfloat16, as only SGLang's own layers want it"
    assert accepts(backend, obj, query, key) == reason
    assert obj.cos_sin_cache.dtype is torch.float32


def test_other_heads_are_refused_where_they_do_not_go_together(backend: Backend) -> None:
    obj = layer(backend, 96, 96)
    obj.use_fallback_kernel = True
    query, key, _ = qkv(backend, 3, 3, 2, 96)
    assert accepts(backend, obj, query, key) == "query (3, 3, 96) does not go with key (3, 2, 96) and 96 of cos and sin"


def test_without_a_key_it_is_refused(backend: Backend) -> None:
    query, _, _ = qkv(backend, 3, 2, 2, 64)
    assert accepts(backend, layer(backend, 64, 64), query, None) == "there is no key, and the kernel rotates both"


def test_tables_of_the_callers_own_are_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    cos, sin = obj.cos_sin_cache.chunk(2, dim=-1)
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    where = positions(backend, 3)
    assert backend.accepts(OP, obj, query, key, cos, sin, where) is True
    others = [
        (cos.contiguous(), sin.contiguous()),
        obj.cos_sin_cache.clone().chunk(2, dim=-1),
        (sin, cos),
        (cos, cos),
        (cos[1:], sin[1:]),
        (cos[::2], sin[::2]),
    ]
    for other in others:
        answer = backend.accepts(OP, obj, query, key, *other, where)
        assert answer == NOT_THE_LAYERS


def test_a_cache_that_does_not_start_at_16_bytes_is_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    shifted = backend.randn(64 * 8 + 1, dtype=torch.float32)[1:].view(8, 64)
    obj.cos_sin_cache = shifted
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    assert accepts(backend, obj, query, key) == NOT_THE_LAYERS


def test_dtypes_that_differ_or_are_none_of_the_kernels_are_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    for q, k in ((query, key.half()), (query.double(), key.double())):
        answer = accepts(backend, obj, q, k)
        assert (
            answer
            == f"query is in {q.dtype} and key in {k.dtype}, and the kernel takes one of half precision and float32"
        )


def test_a_cache_in_half_precision_is_refused(backend: Backend) -> None:
    query, key, _ = qkv(backend, 3, 2, 2, 64)
    answer = accepts(backend, layer(backend, 64, 64, torch.bfloat16), query, key)
    assert answer == "cos_sin_cache is in torch.bfloat16, and the kernel for heads of 64 reads float32"


def test_one_key_head_may_lie_otherwise_than_the_heads_of_the_query(backend: Backend) -> None:
    """As in multi-head latent attention: the ends of wider heads, and of the latent rows."""
    obj = layer(backend, 64, 64)
    query, latent = backend.randn(5, 16, 192), backend.randn(5, 576)
    rotated_query, rotated_key = query[..., 128:], latent[..., 512:].unsqueeze(1)
    assert accepts(backend, obj, rotated_query, rotated_key) is True
    rest = query[..., :128].clone(), latent[..., :512].clone()
    check(backend, obj, rotated_query, rotated_key, positions(backend, 5))
    assert torch.equal(query[..., :128], rest[0]) and torch.equal(latent[..., :512], rest[1])


def test_layouts_that_the_kernel_cannot_read_are_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    query, key, _ = qkv(backend, 4, 4, 4, 64)
    for q, k in (
        (query, key.contiguous()[:, :1].expand(4, 4, 64)),
        (query, key.transpose(1, 2).contiguous().transpose(1, 2)),
        (query.transpose(0, 1).contiguous().transpose(0, 1), key),
        (query[:1].expand(4, 4, 64), key),
    ):
        assert f"strides {q.stride()} and {k.stride()} are not laid out alike, or overlap" in accepts(
            backend, obj, q, k
        )


def test_heads_that_do_not_start_at_16_bytes_are_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    query, key, _ = qkv(backend, 4, 2, 2, 64)
    wide_query, wide_key, _ = qkv(backend, 4, 2, 2, 66)
    shifted = backend.randn(4 * 2 * 64 + 2)[2:].view(4, 2, 64)
    narrow_query, narrow_key, _ = qkv(backend, 4, 2, 2, 64)
    reason = "a head of query or key does not start at, or span, a multiple of 16 bytes"
    assert accepts(backend, obj, shifted, key.contiguous()) == reason
    assert accepts(backend, obj, query.contiguous(), shifted) == reason
    assert accepts(backend, obj, wide_query[..., :64], wide_key[..., :64]) == reason
    assert accepts(backend, layer(backend, 64, 20), narrow_query[..., :20], narrow_key[..., :20]) == reason


def test_other_devices_are_refused(backend: Backend) -> None:
    obj = layer(backend, 64, 64)
    heads = torch.zeros(1, 2, 64, dtype=torch.bfloat16)
    answer = backend.modules["rotary"].accepts(obj, heads, heads, None, None, None)
    assert answer == "query is on cpu, which is no CUDA device"
