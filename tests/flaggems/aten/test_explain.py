"""What ``sglang-fl explain NAME --aten`` makes of a name, beside what the lists make of it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sglang_fl.cli import app
from sglang_fl.settings import load_settings
from sglang_fl_flaggems.aten import layer
from sglang_fl_flaggems.aten.plan import plan
from sglang_fl_flaggems.aten.table import Table

from .conftest import DECLARED
from .wheel import search_path


@pytest.fixture(autouse=True)
def released_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "installed_package", lambda: search_path() / "flag_gems")
    monkeypatch.delenv("USE_FLAGGEMS", raising=False)


@pytest.mark.parametrize(
    "name", ["add", "add_", "softmax", "aten.mm.default", "mm.default", "mm", "torch.ops.aten.add.Tensor", "aten::add"]
)
def test_a_name_shows_what_it_covers_in_a_whitelist(released: Table, name: str) -> None:
    on = load_settings({"USE_FLAGGEMS": "1", "SGLANG_FL_FLAGOS_WHITELIST": name}, DECLARED)
    listed = [row.name for row in plan(released, on, has_op=lambda key: True) if row.replaced]
    told = json.loads(CliRunner().invoke(app, ["explain", name, "--aten", "--json"]).stdout)
    assert [row["name"] for row in told["aten"]] == listed
    assert listed


@pytest.mark.parametrize("name", ["add.Scalar", "torch.add", "ADD", ""])
def test_a_name_that_no_list_takes_is_an_error(name: str) -> None:
    result = CliRunner().invoke(app, ["explain", name, "--aten"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no loaded backend that can replace it" in result.stderr
