"""What holds for every test."""

from __future__ import annotations

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    of_gpus = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpus and not torch.cuda.is_available():
        for item in of_gpus:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def _forget_third_parties() -> Iterator[None]:
    """Several tests install a distribution of one name, each its own: its module must not outlive the test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent.name == "site":  # tests/third_parties.py
            del sys.modules[name]
