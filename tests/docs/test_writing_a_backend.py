"""docs/writing-a-backend.md: its blocks are one bring-up, run from top to bottom in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sglang_fl import Platform
from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.levels import LEVELS
from tests.distributions.environments import beside_sglang
from tests.uv import build_wheel

REGISTERED = """
import sglang_fl_mychip.attention
from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
assert ATTENTION_BACKENDS["mychip"] is sglang_fl_mychip.attention.create
"""

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
CORE = ROOT / "packages" / "sglang-fl-core"


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Every fenced block: its language and its text."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def script(page: str) -> str:
    """The page as a program for bash: what is added to files is added, and the commands are run."""
    return "\n".join(_step(language, text) for language, text in blocks(page) if language != "console")


def _step(language: str, text: str) -> str:
    if language == "bash":
        return text
    named = re.match(r"# (\S+\.(?:py|yaml))\n", text)
    if named:
        return f"cat >> {named[1]} <<'END OF BLOCK'\n\n{text[named.end() :]}END OF BLOCK\n"
    return f"{language} - <<'END OF BLOCK'\n{text}END OF BLOCK\n"


def test_the_page_becomes_a_program() -> None:
    page = "a\n```bash\nls\n```\nb\n```python\n# a/b.py\nx = 1\n```\n```console\n$ no\n```\n```python\nprint(1)\n```\n"
    added = "cat >> a/b.py <<'END OF BLOCK'\n\nx = 1\nEND OF BLOCK\n"
    assert script(page) == f"ls\n\n{added}\npython - <<'END OF BLOCK'\nprint(1)\nEND OF BLOCK\n"


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_the_suite_has_its_step(level: str) -> None:
    commands = "\n".join(text for language, text in blocks(PAGE) if language == "bash")
    assert re.search(rf"pytest .*-m {level}\b", commands)
    assert re.search(rf"^## \d\. .*: {level}$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("field", ["in_tree", "device_type", "graph_runner", "kv_pools", "server_args"])
def test_the_fields_of_a_platform_that_it_names_are_there(field: str) -> None:
    assert f"`{field}`" in PAGE
    assert field in Platform.__dataclass_fields__


def test_a_vendors_register_ops_is_handed_over_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_fl.dispatch.types import BackendImplKind, OpImpl

    theirs = ModuleType("mychip_ops.register_ops")
    impl = OpImpl("silu_and_mul", "vendor.mychip", BackendImplKind.VENDOR, print, "mychip")
    theirs.register_builtins = lambda registry: registry.register_many([impl])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mychip_ops", ModuleType("mychip_ops"))
    monkeypatch.setitem(sys.modules, "mychip_ops.register_ops", theirs)
    (block,) = [text for language, text in blocks(PAGE) if language == "python" and "adopt" in text]
    names: dict[str, Any] = {}
    exec(compile(block, "writing-a-backend.md", "exec"), names)

    mychip = Platform(name="mychip", device_type="cpu", is_available=lambda: True, in_tree=True)
    assert [each.op for each in names["sglang_fl_register_ops"](mychip)] == ["silu_and_mul"]
    assert impl.op_name in CONTRACTS


@pytest.mark.server
@pytest.mark.timeout(900)
def test_the_bring_up_goes_as_the_page_says(tmp_path: Path) -> None:
    environment = beside_sglang(tmp_path / "env")
    environment.install("--no-deps", build_wheel(CORE, tmp_path))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG", "PYTEST"))}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", f"{script(PAGE)}\npython -c '{REGISTERED}'"],
        cwd=tmp_path,
        env={
            **inherited,
            "PATH": f"{environment.folder / 'bin'}:{os.environ['PATH']}",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTEST_ADDOPTS": "--sglang-fl-examples=2",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "| vendor.mychip" in done.stdout
    assert list((tmp_path / "sglang-fl-mychip" / "dist").glob("sglang_fl_mychip-0.1.0-*.whl"))
