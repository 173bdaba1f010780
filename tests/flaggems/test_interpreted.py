"""Runs what needs kernels in processes in which Triton interprets them, as it does when it is imported there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SLOW = "tests/flaggems/conformance/own/test_conformance.py::test_many_rows[rotary_embedding]"
"""A thousand programs for each call."""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU runs the kernels here")


def interpreted(*arguments: str) -> None:
    """Runs pytest on tests/flaggems with these arguments, and fails with what it prints when it fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environ = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]


def test_our_kernels_keep_the_contracts_of_their_ops() -> None:
    interpreted("tests/flaggems/conformance/own", "--sglang-fl-examples", "3", "--deselect", SLOW)


def test_our_kernels_are_right_where_the_contracts_say_no_more() -> None:
    interpreted("tests/flaggems/kernels")
