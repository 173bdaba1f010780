"""What holds for every test."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Two workers share few cores, and OpenMP threads that wait for each other there take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("shared-machine", deadline=None)  # a pause of the machine is no failure of the code
settings.load_profile("shared-machine")

PACKAGES = Path(__file__).parents[1] / "packages"
BACKENDS = frozenset(folder.name for folder in PACKAGES.iterdir()) - {"sglang-fl-core"}
"""Our own backends' distributions."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    of_gpus = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpus and not torch.cuda.is_available():
        for item in of_gpus:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture
def core_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds core and what a test installs, but none of our backends, which this checkout installs, too."""
    installed = importlib.metadata.entry_points

    def without_backends(**params: str) -> importlib.metadata.EntryPoints:
        found = installed(**params)
        if not isinstance(
            found, importlib.metadata.EntryPoints
        ):  # all groups, before Python 3.12; triton asks for them
            return found
        kept = (point for point in found if point.dist is None or point.dist.name not in BACKENDS)
        return importlib.metadata.EntryPoints(kept)

    monkeypatch.setattr(importlib.metadata, "entry_points", without_backends)


@pytest.fixture(autouse=True)
def _forget_third_parties() -> Iterator[None]:
    """Several tests install a distribution of one name, each its own: its module must not outlive the test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent.name == "site":  # tests/third_parties.py
            del sys.modules[name]
