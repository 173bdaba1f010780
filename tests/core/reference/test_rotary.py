from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from .calls import OPS, Call, Layer, assert_rounded_once, exact, for_calls

rotary_embedding = OPS["rotary_embedding"]


def _as_complex(rows: np.ndarray, interleaved: bool) -> np.ndarray:
    if interleaved:
        return rows[..., 0::2] + 1j * rows[..., 1::2]
    half = rows.shape[-1] // 2
    return rows[..., :half] + 1j * rows[..., half:]


@for_calls("rotary_embedding")
def test_each_pair_turns_by_the_angle_of_its_position(call: Call) -> None:
    positions = call.position_ids.numpy()
    turn = (exact(call.cos) + 1j * exact(call.sin))[positions][:, None]
    for given_rows, rotated in zip((call.query, call.key), call(), strict=True):
        if given_rows is None:
            assert rotated is None
            continue
        wanted = _as_complex(exact(given_rows), call.rotary_interleaved) * turn
        size = np.abs(wanted) + 2 * np.abs(_as_complex(exact(given_rows), call.rotary_interleaved))
        got = _as_complex_parts(rotated, call.rotary_interleaved)
        assert_rounded_once(got[0], wanted.real, size)
        assert_rounded_once(got[1], wanted.imag, size)


def _as_complex_parts(rows: torch.Tensor, interleaved: bool) -> tuple[torch.Tensor, ...]:
    return (rows[..., 0::2], rows[..., 1::2]) if interleaved else rows.chunk(2, dim=-1)


@for_calls("rotary_embedding")
def test_results_are_contiguous(call: Call) -> None:
    assert all(rotated.is_contiguous() for rotated in call() if rotated is not None)


@for_calls("rotary_embedding")
def test_position_dtype_and_leave_to_overwrite_change_nothing(call: Call) -> None:
    first = call()
    call.arguments |= {"position_ids": call.position_ids.long(), "inplace": not call.inplace}
    for one, other in zip(first, call(), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("interleaved", [False, True])
def test_neighbours_turn_together_or_halves_do(interleaved: bool) -> None:
    # By a quarter turn in the first pair and none in the second.
    cos, sin = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    query = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    rotated, _ = rotary_embedding(Layer(), query, None, cos, sin, torch.tensor([0]), interleaved)
    assert rotated.flatten().tolist() == ([-2.0, 1.0, 3.0, 4.0] if interleaved else [-3.0, 2.0, 1.0, 4.0])


class _Sizes(TorchDispatchMode):
    """Records the number of elements of every result that has a storage of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not any(result is a or result._is_view() for a in args):
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16])
def test_only_the_rows_that_are_used_are_read(dtype: torch.dtype, cache_dtype: torch.dtype) -> None:
    cos, sin = torch.randn(10000, 8).to(cache_dtype).chunk(2, dim=-1)
    query = torch.randn(3, 2, 8).to(dtype)
    with _Sizes() as seen:
        rotary_embedding(Layer(), query, None, cos, sin, torch.tensor([9999, 0, 5000]))
    assert max(seen.sizes) == query.numel()


@pytest.mark.parametrize("interleaved", [False, True])
@given(width=st.integers(1, 12).filter(lambda width: width != 4))
def test_rows_of_another_width_than_the_cache_are_refused(interleaved: bool, width: int) -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        rotary_embedding(
            *(Layer(), torch.ones(2, 1, width), None, torch.ones(9, 2), torch.ones(9, 2), torch.tensor([0, 8])),
            interleaved,
        )


def test_a_position_beyond_the_cache_is_refused() -> None:
    table = torch.ones(4, 1)
    with pytest.raises(IndexError):
        rotary_embedding(Layer(), torch.ones(1, 1, 2), None, table, table, torch.tensor([4]))
