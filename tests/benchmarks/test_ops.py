from __future__ import annotations

import re
from math import isnan, nan
from typing import Any

import pytest
import torch

from benchmarks.figures import Figures
from benchmarks.op_cases import Case
from benchmarks.ops import OURS, Row, _add_figures
from sglang_fl.reference.normalization import rms_norm

VENDOR = "vendor.cuda"


def row(implementation: str = OURS, tokens: int = 16384, **figures: Any) -> Row:
    """Of a call that keeps every bound: as fast as the copy beside it."""
    right = {"error": 0.0, "eager_us": 5.0, "graph_us": 1.0, "gb_per_s": 3000.0, "copy_gb_per_s": 3000.0}
    return Row("silu_and_mul", "float16", 8192, tokens, implementation, **{**right, "megabytes": 768.0, **figures})


def refusing(tokens: int) -> Row:
    return Row("silu_and_mul", "float16", 8192, tokens, OURS, refused="no")


def missed(capsys: pytest.CaptureFixture[str], *rows: Row) -> list[str]:
    _add_figures(rows, Figures())
    return re.findall(r"^figure ops\.silu_and_mul\.flagos\.triton\.(\S+) .* missed$", capsys.readouterr().out, re.M)


def test_what_is_served_right_and_fast_keeps_every_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert missed(capsys, row(), row(VENDOR)) == []


@pytest.mark.parametrize(
    "rows",
    [[row(VENDOR)], [row(VENDOR), refusing(16384)], [row(), refusing(1)]],
    ids=["absent", "refusing", "refusing one of two"],
)
def test_a_case_that_our_kernels_do_not_serve_is_missed(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    assert missed(capsys, *rows) == ["not_served"]


def test_bandwidth_is_judged_by_the_fastest_large_copy_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    slow = row(gb_per_s=2400.0, copy_gb_per_s=2400.0)
    in_cache = row(tokens=64, copy_gb_per_s=4500.0, megabytes=3.0)
    assert missed(capsys, slow, in_cache) == []
    assert missed(capsys, slow, row(VENDOR)) == ["float16.of_copy_bandwidth"]


def test_an_error_that_is_not_a_number_is_missed_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert missed(capsys, row(), row(tokens=64, error=nan)) == ["float16.error"]


def test_the_error_of_a_case_is_not_a_number_where_one_of_its_results_is_none() -> None:
    def broken(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        normed, total = rms_norm(*arguments)
        return normed, total * nan

    assert isnan(Case("rms_norm", True, 64, 4, torch.float32).error(broken, torch.device("cpu")))
