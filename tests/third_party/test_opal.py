"""Opal, a vendor built on public names only: its own wheel, platform, ops and settings, served by a real SGLang."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import sglang_fl
from sglang_fl.cli import app
from tests.distributions.environments import Environment
from tests.engines import generate, greedy
from tests.models import tiny_llama
from tests.third_party.conftest import PROJECT

LINES = 60
SOURCES = sorted((PROJECT / "src").rglob("*.py"))

TABLE = """\
ops of LlamaForCausalLM on platform opal
op                layer class      implementation  layers
rms_norm          RMSNorm          vendor.opal     5
rotary_embedding  RotaryEmbedding  vendor.opal     1
silu_and_mul      SiluAndMul       vendor.opal     2
"""

needs_a_machine_without_a_gpu = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="the pretend chip needs a machine without a real one"
)

Cli = Callable[..., Any]


@pytest.fixture
def cli(site: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line beside Opal: ``cli("explain", "rms_norm", SGLANG_FL_PREFER="vendor")`` -> the JSON it prints."""
    for name in [name for name in os.environ if name.startswith("SGLANG")]:
        monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(site)

    def run(*arguments: str, **variables: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"], env=variables)
        assert result.stdout, result.output
        return json.loads(result.stdout)

    return run


def code_lines(source: str) -> int:
    """Lines that are neither blank nor a comment, a docstring or an import."""
    tree, counted = ast.parse(source), dict(enumerate(source.splitlines(), 1))
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                counted.pop(line, None)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in counted.values())


def names_of_ours(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("sglang"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_vendor_needs_at_most_60_lines() -> None:
    assert code_lines('"""Text."""\n\nimport os\n\n# why\nx = 1\n\n\ndef f():\n    """Text."""\n    return x\n') == 3
    assert sum(code_lines(path.read_text()) for path in SOURCES) <= LINES


def test_a_vendor_needs_public_names_only() -> None:
    used = {name for path in SOURCES for name in names_of_ours(path.read_text())}
    assert used
    assert used <= {f"sglang_fl.{name}" for name in sglang_fl.__all__}


@needs_a_machine_without_a_gpu
def test_it_is_discovered_with_all_that_it_offers(cli: Cli) -> None:
    (opal,) = [plugin for plugin in cli("plugins")["plugins"] if plugin["name"] == "opal"]
    assert (opal["distribution"], opal["version"], opal["state"]) == ("sglang-opal", "2.1", "ok")
    assert opal["offers"] == {
        "platforms": ["opal"],
        "ops": ["silu_and_mul/vendor.opal", "rms_norm/vendor.opal", "rotary_embedding/vendor.opal"],
    }


@needs_a_machine_without_a_gpu
def test_its_op_serves_and_the_reason_is_its_own_default(cli: Cli) -> None:
    explained = cli("explain", "rms_norm")
    assert explained["chosen"] == "vendor.opal"
    assert explained["verdicts"][0]["distribution"] == "sglang-opal"
    assert "sglang-opal" in explained["verdicts"][0]["reason"]


@needs_a_machine_without_a_gpu
def test_its_op_does_not_serve_on_another_platform(cli: Cli) -> None:
    explained = cli("explain", "rms_norm", SGLANG_FL_PLATFORM="cpu")
    assert "vendor.opal" not in [verdict["impl_id"] for verdict in explained["verdicts"]]


@needs_a_machine_without_a_gpu
def test_its_setting_is_shown_with_where_it_came_from(cli: Cli) -> None:
    def setting(**variables: str) -> tuple[int, str]:
        (row,) = [row for row in cli("config", **variables)["settings"] if row["key"] == "opal_threads"]
        return row["value"], row["origin"]

    assert setting()[0] == 1
    assert "sglang-opal" in setting()[1]
    assert setting(SGLANG_FL_OPAL_THREADS="3")[0] == 3
    assert setting(SGLANG_FL_OPAL_THREADS="3")[1].startswith("SGLANG_FL_OPAL_THREADS, over ")
    assert setting(SGLANG_FL_PLATFORM="cpu") == (2, "default of sglang-opal")


@needs_a_machine_without_a_gpu
def test_doctor_tells_its_lines_and_that_its_platform_is_chosen(cli: Cli) -> None:
    lines = {line["subject"]: line for line in cli("doctor")["lines"]}
    assert (lines["cores"]["by"], lines["cores"]["ok"]) == ("sglang-opal", True)
    assert lines["platform"]["found"].startswith("opal, priority 100; not ")
    assert lines["silu_and_mul"]["found"] == "vendor.opal of sglang-opal"


@needs_a_machine_without_a_gpu
def test_it_passes_the_conformance_suite_of_its_own_tests(machine: Environment, tmp_path: Path) -> None:
    tests = shutil.copytree(PROJECT / "tests", tmp_path / "tests")
    done = subprocess.run(
        [machine.python, "-m", "pytest", tests, "-m", "L0 or L1 or L3", "--sglang-fl-examples", "2"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("SGLANG", "PYTEST"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformance: vendor.opal of sglang-opal 2.1 on opal (Opal)" in done.stdout
    assert "calls of silu_and_mul: Opal takes rows of a multiple of 16" in done.stdout


@pytest.mark.server
@pytest.mark.timeout(600)
@needs_a_machine_without_a_gpu
def test_sglang_serves_on_its_platform_with_its_ops_as_the_reference_does(machine: Environment, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model")

    answer = generate(machine.python, model, tmp_path, {"SGLANG_FL_STRICT": "1", "SGLANG_FL_OPAL_THREADS": "2"})

    assert answer.tokens == greedy(model)
    assert TABLE in answer.log
    assert "opal computes with 2 threads" in answer.log
