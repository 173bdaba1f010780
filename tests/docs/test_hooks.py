"""docs/hooks.md and the package's README: their code runs, and they leave no hook and no op out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from sglang_fl import OpImpl, Platform
from sglang_fl.ops import CONTRACTS
from sglang_fl.plugins import SPECS
from sglang_fl.records import Capability
from sglang_fl.settings import load_settings
from tests.core.samples import CPU

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hooks.md"
README = ROOT / "packages" / "sglang-fl-core" / "README.md"


def _run(page: Path) -> dict[str, Any]:
    """Runs a page's Python as one program, and returns its names."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    return names


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_has_a_row(hook: str) -> None:
    assert f"\n| `{hook}(" in PAGE.read_text()


@pytest.mark.parametrize("op", CONTRACTS)
def test_every_op_has_a_row_with_what_it_reads(op: str) -> None:
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and f"`{op}`" in line]
    assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) == set(CONTRACTS[op].reads)


def test_the_example_op_is_one_that_serves() -> None:
    names = _run(PAGE)
    (impl,) = names["sglang_fl_register_ops"](CPU)
    assert isinstance(impl, OpImpl)
    assert impl.is_available() is True
    x = torch.randn(3, 8)
    assert CONTRACTS[impl.op].check({"obj": None, "x": x}, impl.load()(None, x)) is None


def test_the_example_accepts_says_why_not() -> None:
    accepts = _run(PAGE)["accepts"]
    assert accepts(None, torch.empty(1, 32)) is True
    assert "33" in accepts(None, torch.empty(1, 33))


def test_the_example_platform_is_a_record() -> None:
    platform = _run(PAGE)["mychip"]
    assert isinstance(platform, Platform)
    assert platform.is_available() == "no /dev/mychip0 on this machine"


def test_the_package_readme_declares_an_op_for_its_own_platform_only() -> None:
    register_ops = _run(README)["sglang_fl_register_ops"]
    mychip = Platform(name="mychip", device_type="mychip", is_available=lambda: True, in_tree=True)
    assert [impl.op for impl in register_ops(mychip)] == ["silu_and_mul"]
    assert register_ops(CPU) == []


def test_the_example_setting_is_one_that_users_can_set() -> None:
    names = _run(PAGE)
    declared = [("mychip", setting) for setting in names["sglang_fl_register_settings"]()]
    settings = load_settings({"SGLANG_FL_MYCHIP_STREAMS": "4"}, declared)
    assert settings.of_backends == {"mychip_streams": 4}
    names["sglang_fl_activate"](CPU, settings)


def test_every_capability_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?!`)", PAGE.read_text().partition("| capability |")[2], re.MULTILINE)
    assert rows == list(get_args(Capability))
