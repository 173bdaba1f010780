"""``sglang-fl new-backend``: what it writes is a whole distribution, and what it cannot write is a clear error."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from typer.testing import CliRunner

from sglang_fl.cli import app
from tests.cli.conftest import Cli, Install
from tests.distributions.environments import Environment, beside_sglang
from tests.uv import build_wheel

CORE = Path(__file__).parents[2] / "packages" / "sglang-fl-core"


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(home: Path) -> Path:
    result = CliRunner().invoke(app, ["new-backend", "jade", "--directory", str(home)])
    assert result.exit_code == 0, result.output
    return home / "sglang-fl-jade"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written for a chip called jade."""
    return write(tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with SGLang, core from its wheel, and jade, editable, from the folder beside it."""
    home = tmp_path_factory.mktemp("jade")
    environment = beside_sglang(home / "env")
    environment.install("--no-deps", build_wheel(CORE, home), "--editable", write(home))
    return environment


def test_the_tests_of_a_new_backend_pass_at_once(installed: Environment) -> None:
    done = subprocess.run(
        # Those two take long, and tests/docs/test_writing_a_backend.py runs them.
        [installed.python, "-m", "pytest", "-m", "not (L2 or L6)", "--sglang-fl-examples", "2"],
        cwd=installed.folder.with_name("sglang-fl-jade"),
        env={name: value for name, value in os.environ.items() if not name.startswith(("SGLANG", "PYTEST"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformance: vendor.jade of sglang-fl-jade 0.1.0 on jade (a pretended jade)" in done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout.splitlines()[-1])[1]) >= 20  # type: ignore[index]


def test_a_new_backend_is_discovered_and_its_op_serves(installed: Environment) -> None:
    jade = installed.plugins()["jade"]
    assert (jade["distribution"], jade["state"]) == ("sglang-fl-jade", "ok")
    assert jade["offers"] == {"platforms": ["jade"], "ops": ["silu_and_mul/vendor.jade"]}
    explained = json.loads(installed.cli("explain", "silu_and_mul", "--json").stdout)
    assert explained["chosen"] == "vendor.jade"


def test_a_new_backends_wheel_holds_all_of_its_package(folder: Path, tmp_path: Path) -> None:
    held = {name for name in ZipFile(build_wheel(folder, tmp_path)).namelist() if ".dist-info/" not in name}
    assert held == set(texts(folder / "src"))
    assert {"sglang_fl_jade/jade.yaml", "sglang_fl_jade/py.typed"} <= held


def test_what_is_written_passes_its_own_lint(folder: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", folder]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_backend_takes_the_core_that_wrote_it_and_its_patches(folder: Path) -> None:
    (line,) = re.findall(r'"(sglang-fl-core[^"\[]+)"', texts(folder)["pyproject.toml"])
    version = Version(importlib.metadata.version("sglang-fl-core"))
    minor = f"{version.major}.{version.minor}"
    assert str(Requirement(line)) == str(Requirement(f"sglang-fl-core>={minor},<{version.major}.{version.minor + 1}"))


def test_nothing_of_the_templates_name_is_left(folder: Path) -> None:
    for path, text in texts(folder).items():
        assert "mychip" not in path + text, path


def test_a_name_of_two_words_is_written_as_each_place_wants_it(cli: Cli, tmp_path: Path) -> None:
    result = cli("new-backend", "deep_blue", "--json")

    assert result.exit_code == 0, result.output
    folder = tmp_path / "sglang-fl-deep-blue"
    lines = texts(folder)["pyproject.toml"].splitlines()
    assert 'name = "sglang-fl-deep-blue"' in lines
    assert 'deep_blue = "sglang_fl_deep_blue.hooks"' in lines
    told = json.loads(result.stdout)
    assert told["folder"] == "sglang-fl-deep-blue"
    assert set(told["files"]) == {f"sglang-fl-deep-blue/{path}" for path in texts(folder)}


@pytest.mark.parametrize("name", ["3d", "class", "Chip", "my-chip", "a b", "../x", "é", ""])
def test_a_name_that_is_no_identifier_is_an_error(cli: Cli, tmp_path: Path, name: str) -> None:
    result = cli("new-backend", name)

    assert result.exit_code == 1
    assert f"asked  a backend called {name!r}" in result.stderr
    assert "found  that it is no lower-case identifier of Python" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("core", "that there is a distribution sglang-fl-core"),
        ("acme", "that there is a distribution sglang-fl-acme"),
        ("cpu", "that plugin 'reference' of sglang-fl-core"),
        ("reference", "that plugin 'reference' of sglang-fl-core"),
    ],
)
def test_a_name_that_is_taken_is_an_error_that_says_by_whom(
    cli: Cli, install: Install, tmp_path: Path, name: str, found: str
) -> None:
    install("sglang-fl-acme", "from sglang_fl import hookimpl")

    result = cli("new-backend", name, "--directory", str(tmp_path / "new"))

    assert result.exit_code == 1
    assert found in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_backend_of_ours_that_is_not_installed_keeps_its_name(tmp_path: Path, installed: Environment) -> None:
    done = installed.cli("new-backend", "ascend", "--directory", str(tmp_path))
    assert done.returncode == 1
    assert "found  that there is a distribution sglang-fl-ascend" in done.stderr


def test_a_folder_that_is_there_stays_as_it_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sglang-fl-jade").mkdir()
    (tmp_path / "sglang-fl-jade" / "README.md").write_text("mine")

    result = cli("new-backend", "jade")

    assert result.exit_code == 1
    assert "asked  a new folder sglang-fl-jade\nfound  [Errno 17] File exists" in result.stderr
    assert texts(tmp_path) == {"sglang-fl-jade/README.md": "mine"}


def test_a_folder_that_cannot_be_made_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = cli("new-backend", "jade", "--directory", "file")

    assert result.exit_code == 1
    assert "Not a directory" in result.stderr
    assert "to do  make room there, or choose another place with --directory" in result.stderr
