from __future__ import annotations

import pytest
import torch

from sglang_fl_flaggems.kernels.rotary import rotary_embedding
from tests.flaggems.device import DEVICE, needs_gpu, on_device
from tests.flaggems.kernels.nearness import DTYPES, assert_near

pytestmark = on_device

CASES = [
    *((9, 3, 64, dtype) for dtype in DTYPES),
    (3, 1, 18, torch.float32),
    (32, 8, 128, torch.bfloat16),
    (130, 1, 64, torch.float16),
]
"""Query heads, key heads, width, dtype: SmolLM2's, an odd width, Llama's, more than one program's share."""


def exact(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """x rotated by the rows of cos and sin, in float64."""
    c, s = (table.double().unsqueeze(1) for table in (cos, sin))
    wide = x.double()
    first, second = (wide[..., ::2], wide[..., 1::2]) if interleaved else wide.chunk(2, dim=-1)
    rotated = (first * c - second * s, second * c + first * s)
    return torch.stack(rotated, dim=-1).flatten(-2) if interleaved else torch.cat(rotated, dim=-1)


def tables(width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = torch.randn(50, width, device=DEVICE, dtype=dtype).chunk(2, dim=-1)
    return cos, sin


def positions(tokens: int) -> torch.Tensor:
    return torch.randint(0, 50, (tokens,), device=DEVICE)


@pytest.mark.parametrize(("queries", "keys", "width", "dtype"), CASES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_heads_in_one_row_are_rotated(
    queries: int, keys: int, width: int, dtype: torch.dtype, interleaved: bool, inplace: bool
) -> None:
    rows = torch.randn(3, (queries + 2 * keys) * width, device=DEVICE, dtype=dtype)
    query, key, value = rows.split([queries * width, keys * width, keys * width], dim=-1)
    query, key, before = query.view(3, queries, width), key.view(3, keys, width), rows.clone()
    (cos, sin), at = tables(width), positions(3)
    wanted = [exact(x, cos[at], sin[at], interleaved) for x in (query, key)]
    rotated = rotary_embedding(None, query, key, cos, sin, at, interleaved, inplace)
    for got, near in zip(rotated, wanted, strict=True):
        assert_near(got, near)
    assert (rotated[0] is query, rotated[1] is key) == (inplace, inplace)
    assert torch.equal(value, before[:, -keys * width :])
    assert inplace or torch.equal(rows, before)


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_rest_of_a_head_stays(interleaved: bool) -> None:
    heads = torch.randn(3, 4, 96, device=DEVICE)
    before, (cos, sin), at = heads.clone(), tables(32), positions(3)
    _, key = rotary_embedding(None, heads[..., :32], None, cos, sin, at, interleaved)
    assert key is None
    assert_near(heads[..., :32], exact(before[..., :32], cos[at], sin[at], interleaved))
    assert torch.equal(heads[..., 32:], before[..., 32:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_may_be_of_another_dtype_and_positions_of_32_bits_and_strided(dtype: torch.dtype) -> None:
    query, (cos, sin) = torch.randn(4, 2, 16, device=DEVICE), tables(16, dtype)
    at = torch.randint(0, 50, (8,), device=DEVICE, dtype=torch.int32)[::2]
    wanted = exact(query, cos[at], sin[at], False)
    assert_near(rotary_embedding(None, query, None, cos, sin, at)[0], wanted)


@pytest.mark.parametrize("strides", [(16, 0, 1), (0, 16, 1), (32, 8, 1), (24, 16, 1), (64, 16, 0), (17, 33, 2)])
def test_heads_that_share_memory_are_not_overwritten(strides: tuple[int, ...]) -> None:
    query = torch.randn(200, device=DEVICE).as_strided((3, 4, 16), strides)
    before, (cos, sin), at = query.clone(), tables(16), positions(3)
    rotated, _ = rotary_embedding(None, query, None, cos, sin, at)
    assert_near(rotated, exact(before, cos[at], sin[at], False))
    assert rotated is not query
    assert torch.equal(query, before)


@pytest.mark.parametrize("strides", [(64, 16, 1), (16, 48, 1), (1, 48, 3), (128, 32, 2), (64, 1, 4)])
@pytest.mark.parametrize("tokens", [1, 3])
def test_heads_that_share_none_are_overwritten_whatever_their_strides(tokens: int, strides: tuple[int, ...]) -> None:
    query = torch.randn(400, device=DEVICE).as_strided((tokens, 4, 16), strides)
    before, (cos, sin), at = query.clone(), tables(16), positions(tokens)
    rotated, _ = rotary_embedding(None, query, None, cos, sin, at)
    assert rotated is query
    assert_near(query, exact(before, cos[at], sin[at], False))


def test_a_lone_head_and_a_lone_token_may_lie_anywhere() -> None:
    query, (cos, sin), at = torch.randn(16, device=DEVICE).as_strided((1, 1, 16), (0, 0, 1)), tables(16), positions(1)
    before = query.clone()
    assert rotary_embedding(None, query, None, cos, sin, at)[0] is query
    assert_near(query, exact(before, cos[at], sin[at], False))


@pytest.mark.parametrize(("width", "half", "tokens"), [(16, 4, 3), (15, 7, 3), (16, 8, 2)])
def test_shapes_that_do_not_fit_are_refused(width: int, half: int, tokens: int) -> None:
    query, (cos, sin) = torch.randn(3, 2, width, device=DEVICE), tables(2 * half)
    with pytest.raises(ValueError, match="heads, cos, sin and positions of shapes"):
        rotary_embedding(None, query, None, cos, sin, positions(tokens))


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.int32"):
        rotary_embedding(None, torch.ones(3, 2, 16, device=DEVICE, dtype=torch.int32), None, *tables(16), positions(3))


@pytest.mark.parametrize("interleaved", [False, True])
class TestOnAGpu:
    pytestmark = needs_gpu

    def test_no_half_is_overwritten_before_it_is_read(self, interleaved: bool) -> None:
        query, (cos, sin), at = torch.randn(4096, 64, 128, device=DEVICE), tables(128), positions(4096)
        wanted, _ = rotary_embedding(None, query, None, cos, sin, at, interleaved, inplace=False)
        for _ in range(20):
            rotated, _ = rotary_embedding(None, query.clone(), None, cos, sin, at, interleaved)
            assert torch.equal(rotated, wanted)
