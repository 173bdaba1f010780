from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.uv import build_wheel

PACKAGES = Path(__file__).parents[2] / "packages"
DISTRIBUTIONS = sorted(folder.name for folder in PACKAGES.iterdir() if (folder / "pyproject.toml").is_file())


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Every distribution's wheel, by its name. They lie in one folder."""
    folder = tmp_path_factory.mktemp("wheels")
    return {name: build_wheel(PACKAGES / name, folder) for name in DISTRIBUTIONS}
