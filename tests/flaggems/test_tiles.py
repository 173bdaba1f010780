from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl_flaggems.kernels import activation, rms_norm, rotary
from sglang_fl_flaggems.kernels.launch import Tile, power_of_2

WIDTHS = st.integers(1, 2**20)
TOKENS = st.integers(1, 2**31)
LARGEST = 2**38
"""Bytes of memory: more than a device has."""


def is_power_of_2(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@given(st.integers(1, 2**40))
def test_the_least_power_of_two_that_is_not_below(n: int) -> None:
    power = power_of_2(n)
    assert is_power_of_2(power)
    assert power // 2 < n <= power


@pytest.mark.parametrize("config", [activation.config, rms_norm.config, partial(rms_norm.config, has_residual=True)])
@given(n=WIDTHS, tokens=TOKENS)
def test_a_tile_fits_in_registers_and_a_grid_in_31_bits(
    config: Callable[[int, int], Tile], n: int, tokens: int
) -> None:
    tile = config(n, tokens)
    assert all(map(is_power_of_2, tile))
    assert tile.warps <= 16
    assert tile.rows * tile.block <= 128 * 32 * tile.warps
    if 2 * tokens * n < LARGEST:
        assert -(-tokens // tile.rows) * -(-n // tile.block) < 2**31


@given(n=WIDTHS, tokens=TOKENS)
def test_a_norm_reads_a_row_once_unless_it_is_too_wide_for_registers(n: int, tokens: int) -> None:
    assert rms_norm.config(n, tokens).block >= min(n, 32768)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 512), st.booleans())
def test_the_programs_of_a_token_cover_all_its_heads(queries: int, keys: int, half: int, many: bool) -> None:
    if queries + keys == 0:
        return
    tile = rotary.config(queries, keys, half, many)
    assert all(map(is_power_of_2, (tile.queries, tile.keys, tile.warps)))
    assert tile.groups * tile.queries >= queries
    assert tile.groups * tile.keys >= keys
    assert tile.queries * power_of_2(half) <= 64 * 32 * tile.warps
