from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sglang_fl.settings import Settings, load_settings
from sglang_fl_flaggems.aten.settings import SETTINGS
from sglang_fl_flaggems.aten.table import Table, read_table

from .wheel import search_path

DECLARED = [("sglang-fl-flaggems", setting) for setting in SETTINGS]

Given = Callable[..., Settings]


@pytest.fixture(scope="session")
def released() -> Table:
    """The ops of the released FlagGems."""
    return read_table(search_path() / "flag_gems")


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """The settings of these variables, of a YAML file with this text, and of a platform with these defaults."""

    def read(variables: Mapping[str, str], yaml: str = "", defaults: Mapping[str, object] | None = None) -> Settings:
        file = tmp_path / "my.yaml"
        file.write_text(yaml)
        environ = {"SGLANG_FL_CONFIG": str(file), **variables}
        return load_settings(environ, DECLARED, [("acme-chip", defaults or {})])

    return read
