from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sglang_fl.cli import app
from tests.third_parties import third_party

Cli = Callable[..., Result]
Install = Callable[..., None]


@pytest.fixture(autouse=True)
def no_settings(core_alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment and a working directory that say nothing to SGLang or to us."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SGLANG") or name == "USE_FLAGGEMS"]:
        monkeypatch.delenv(name)


@pytest.fixture
def cli() -> Cli:
    """Runs the command line in this process: ``cli("explain", "rms_norm")``."""
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a third party for this process: ``install("acme-chip", source, version="1.0")``."""

    def installed(name: str, source: str, version: str = "1.0", **options: Any) -> None:
        monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)
        monkeypatch.syspath_prepend(third_party(tmp_path, name, source, version, **options))

    return installed
