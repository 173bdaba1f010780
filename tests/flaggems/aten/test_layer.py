"""The layer with the released FlagGems and PyTorch's real dispatcher, on a machine that pretends to have a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sglang_fl_flaggems.aten.defects import silently_wrong
from sglang_fl_flaggems.aten.names import covered
from sglang_fl_flaggems.aten.registration import has_op
from sglang_fl_flaggems.aten.table import Table

from .workers import pretended

ON = {"USE_FLAGGEMS": "1"}
Outcomes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def outcomes(scratch: Path) -> Outcomes:
    record = {"SGLANG_FLAGGEMS_RECORD": "1", "SGLANG_FLAGGEMS_LOG_PATH": str(scratch / "logs" / "aten.txt")}
    cases = {
        "off": {},
        "all": ON,
        "blacklist": ON | record | {"SGLANG_FL_FLAGOS_BLACKLIST": "aten::exp,mm,add_"},
        "whitelist": ON | record | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Tensor"},
        "unknown": ON | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Scalar"},
        "wrong": ON | {"SGLANG_FL_FLAGOS_WHITELIST": "mul.Tensor"},
        "in vain": {"SGLANG_FL_FLAGOS_BLACKLIST": "add"},
    }
    return dict(zip(cases, pretended(list(cases.values()), scratch), strict=True))


def by_flaggems(outcome: dict[str, Any]) -> set[str]:
    """The ops among those looked at whose kernel for CUDA is FlagGems', as PyTorch's dispatcher tells."""
    return {key for key, file in outcome["kernels"].items() if file.endswith("flag_gems/__init__.py")}


def test_off_leaves_everything_to_pytorch(outcomes: Outcomes) -> None:
    assert outcomes["off"]["error"] is None
    assert outcomes["off"]["replaced"] == []
    assert by_flaggems(outcomes["off"]) == set()


def test_on_replaces_every_op_that_pytorch_has_and_flaggems_gets_right(outcomes: Outcomes, released: Table) -> None:
    assert outcomes["all"]["error"] is None
    wrong = silently_wrong("5.0.2", "cuda")
    assert outcomes["all"]["replaced"] == sorted(key for key in released if has_op(key) and key not in wrong)
    assert by_flaggems(outcomes["all"]) == {"add.Tensor", "add_.Tensor", "mm"}


def test_a_blacklist_leaves_just_its_overloads_to_pytorch(outcomes: Outcomes, released: Table) -> None:
    left = {key for name in ("exp", "mm", "add_") for key in covered(name, released)}
    assert outcomes["blacklist"]["error"] is None
    assert set(outcomes["all"]["replaced"]) - set(outcomes["blacklist"]["replaced"]) == left
    assert by_flaggems(outcomes["blacklist"]) == {"add.Tensor"}


def test_a_whitelist_replaces_nothing_else(outcomes: Outcomes) -> None:
    assert outcomes["whitelist"]["error"] is None
    assert outcomes["whitelist"]["replaced"] == ["add.Tensor"]
    assert by_flaggems(outcomes["whitelist"]) == {"add.Tensor"}


@pytest.mark.parametrize(("case", "error"), [("unknown", "'add.Tensor'"), ("in vain", "set USE_FLAGGEMS=1")])
def test_an_error_comes_before_anything_is_replaced(outcomes: Outcomes, case: str, error: str) -> None:
    assert error in outcomes[case]["error"]
    assert by_flaggems(outcomes[case]) == set()


def test_the_record_has_the_calls_of_replaced_functions_of_both_workers(outcomes: Outcomes, scratch: Path) -> None:
    assert all(len(outcome["failed"]) == 2 for outcome in outcomes.values())
    lines = (scratch / "logs" / "aten.txt").read_text().splitlines()
    assert lines == ["[DEBUG] flag_gems.ops.add.add: aten::add.Tensor"] * 2
