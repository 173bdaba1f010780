"""docs/conformance.md: its files are a vendor's, its commands run, and it leaves no level and no capability out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing import Requirements, suite
from sglang_fl.testing.levels import LEVELS
from sglang_fl.testing.matrix import HEADS
from sglang_fl.testing.requirements import CAPABILITIES, FEATURES
from tests.third_parties import third_party

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")

HOOKS = """
    import torch

    from sglang_fl import BackendImplKind, OpImpl, Platform, hookimpl

    def silu_and_mul(obj, x):
        gate, up = x.float().chunk(2, dim=-1)
        return (torch.nn.functional.silu(gate) * up).to(x.dtype)

    @hookimpl
    def sglang_fl_register_platforms():
        return [Platform(name="mychip", device_type="cpu", is_available=lambda: True,
                         total_memory=lambda index: 2**36, used_memory=lambda index: 2**30)]

    @hookimpl
    def sglang_fl_register_ops(platform):
        if platform.name != "mychip":
            return []
        return [OpImpl(op="silu_and_mul", impl_id="vendor.mychip", kind=BackendImplKind.VENDOR, vendor="mychip",
                       fn=silu_and_mul)]
"""
SWAPPED = HOOKS.replace("gate, up =", "up, gate =")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def files(name: str) -> list[str]:
    """The page's versions of one file."""
    return [text for block in ("python", "yaml") for text in blocks(block) if text.startswith(f"# {name}\n")]


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("pytest")]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of the page in a vendor's folder."""

    def run(command: str, requirements: str, hooks: str = HOOKS) -> subprocess.CompletedProcess[str]:
        site = third_party(tmp_path, "mychip-sglang", hooks, entry_points={"mychip": "mychip_sglang"})
        (tmp_path / "requirements.py").write_text(requirements)
        (tmp_path / "test_conformance.py").write_text(files("test_conformance.py")[0])
        return subprocess.run(
            [sys.executable, "-m", *shlex.split(command), "-c", os.devnull, "--rootdir", "."],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_page_says(
    command: str, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    claims = files("requirements.py")[COMMANDS.index(command) == 2]  # the last is about the stand-in
    ended = run(command, claims)
    assert ended.returncode == 0, ended.stdout
    assert "conformance: vendor.mychip of mychip-sglang 1.0 on mychip" in ended.stdout
    if "simulated_by" in claims:
        assert "(cpu, simulated by kernels for the CPU)" in ended.stdout
    if "--sglang-fl-matrix" in command:
        assert (tmp_path / "support.md").read_text().splitlines()[0] == blocks("markdown")[0].strip()


def test_a_failure_reads_as_the_page_shows(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = run("pytest -m L3 -k 'values and silu and float16'", files("requirements.py")[0], SWAPPED)
    (shown,) = blocks("text")
    told = [line.removeprefix("E").strip() for line in ended.stdout.splitlines()]
    for line in shown.splitlines():
        assert any(_without_numbers(line.strip()) in _without_numbers(one) for one in told), ended.stdout


def _without_numbers(text: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "N", text)


def test_the_known_failure_is_a_test_of_the_suite() -> None:
    (text,) = files("known_failures.yaml")
    for name in yaml.safe_load(text):
        assert name.partition("[")[0] in suite.TESTS


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_has_a_row(level: str) -> None:
    assert f"\n| {level} | {LEVELS[level]} | " in PAGE


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_capability_is_named(capability: str) -> None:
    assert capability in CONTRACTS or f"`{capability}`" in PAGE
    assert capability not in FEATURES or f"\n| `{capability}` | L" in PAGE


@pytest.mark.parametrize("field", Requirements.__dataclass_fields__)
def test_every_claim_has_a_row(field: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert any(f"`{field}`" in row.split("|")[1] for row in rows)


def test_the_matrix_has_the_columns_that_the_page_shows() -> None:
    assert [cell.strip() for cell in blocks("markdown")[0].strip("|\n").split("|")] == list(HEADS)
