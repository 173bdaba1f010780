"""The layer on a GPU, each case in a process of its own: what is replaced there stays replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sglang_fl_flaggems import availability

from .workers import run

pytestmark = pytest.mark.gpu

ON = {"USE_FLAGGEMS": "1", "SGLANG_FLAGGEMS_RECORD": "1"}
CALLED = {"add.Tensor", "add_.Tensor", "mm", "_softmax", "cat", "embedding"}
WRONG = {"mul.Tensor", "fill_.Scalar", "sum.dim_IntList"}


@pytest.fixture(autouse=True)
def flag_gems_serves() -> None:
    answer = availability.flag_gems("cuda")
    if answer is not True:
        pytest.skip(f"needs FlagGems on CUDA: {answer}")


def on_gpu(file: Path, **variables: str) -> tuple[dict[str, Any], set[str]]:
    """What activation comes to with these variables, and the ops that were recorded."""
    outcome = run([], {**ON, "SGLANG_FLAGGEMS_LOG_PATH": str(file), **variables})
    lines = file.read_text().splitlines() if file.exists() else []
    return outcome, {line.partition(": aten::")[2] for line in lines}


def test_replaced_ops_go_to_flaggems_and_are_right(tmp_path: Path) -> None:
    outcome, called = on_gpu(tmp_path / "logs" / "aten.txt")
    assert outcome["error"] is None
    assert len(outcome["replaced"]) > 200
    assert called >= CALLED
    assert WRONG.isdisjoint(called)
    assert max(outcome["errors"].values()) < 2e-3  # mm may use TF32


def test_what_is_blacklisted_stays_with_pytorch(tmp_path: Path) -> None:
    outcome, called = on_gpu(tmp_path / "aten.txt", SGLANG_FL_FLAGOS_BLACKLIST="cat,aten::mm,add_")
    assert outcome["error"] is None
    assert {"cat", "mm", "mm.out", "add_.Tensor"}.isdisjoint(outcome["replaced"])
    assert called & CALLED == CALLED - {"cat", "mm", "add_.Tensor"}
    assert max(outcome["errors"].values()) < 2e-3


def test_a_whitelist_replaces_nothing_else(tmp_path: Path) -> None:
    outcome, called = on_gpu(tmp_path / "aten.txt", SGLANG_FL_FLAGOS_WHITELIST="aten::add.Tensor,softmax")
    assert outcome["replaced"] == ["_softmax", "add.Tensor"]
    assert called == {"add.Tensor", "_softmax"}
    assert max(outcome["errors"].values()) < 2e-3


def test_an_unknown_name_is_an_error_and_nothing_is_replaced(tmp_path: Path) -> None:
    outcome, called = on_gpu(tmp_path / "aten.txt", SGLANG_FL_FLAGOS_WHITELIST="add.Tensr")
    assert "did you mean 'add.Tensor'" in outcome["error"]
    assert called == set()
    assert max(outcome["errors"].values()) < 2e-3


def test_switched_off_nothing_is_replaced(tmp_path: Path) -> None:
    outcome, called = on_gpu(tmp_path / "aten.txt", USE_FLAGGEMS="0")
    assert (outcome["error"], outcome["replaced"], called) == (None, [], set())
