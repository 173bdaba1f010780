"""Runs tests/ascend/under_torch_npu in a process that has the real torch_npu."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ascend.torch_npu_on_cpu import CannotBeHad, environment

ROOT = Path(__file__).parents[2]


def test_the_ops_conform_under_the_real_torch_npu() -> None:
    try:
        environ = environment()
    except CannotBeHad as error:
        pytest.skip(f"no torch_npu on this machine: it lacks {error}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ascend/under_torch_npu"]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
