from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributions.environments import Environment, beside_sglang
from tests.uv import build_wheel, install_beside

PROJECT = Path(__file__).parent / "sglang-opal"
CORE = Path(__file__).parents[2] / "packages" / "sglang-fl-core"

collect_ignore = [PROJECT.name]  # its tests are run where it is installed


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opal's wheel."""
    return build_wheel(PROJECT, tmp_path_factory.mktemp("opal"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Opal's wheel installed, for this process's search path."""
    return install_beside(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def machine(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with SGLang, core and Opal, both from their wheels."""
    home = tmp_path_factory.mktemp("machine")
    environment = beside_sglang(home / "env")
    environment.install("--no-deps", build_wheel(CORE, home), wheel)
    return environment
