"""The real FlagCX on two GPUs: bit for bit what NCCL gives, in graphs too, and ends that do not hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sglang_fl_flagcx.ending import PATIENCE
from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.library import Library
from tests.flagcx.beside_nccl import compare
from tests.flagcx.gpu_graphs_and_ends import end, replay
from tests.flagcx.gpu_processes import in_two_processes

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def library() -> Path:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA GPUs")
    path = os.environ.get("FLAGCX_PATH")
    try:
        return Path(Library.load(path and Path(path)).file)
    except FlagCXError as error:
        pytest.skip(f"needs FlagCX: found {error.found}")


def test_every_collective_is_nccl_s_to_the_bit(library: Path, tmp_path: Path) -> None:
    assert in_two_processes(compare, library, tmp_path) == {0: {}, 1: {}}


def test_a_captured_collective_replays_on_what_its_input_holds_then(library: Path, tmp_path: Path) -> None:
    assert in_two_processes(replay, library, tmp_path) == {0: {}, 1: {}}


def test_an_end_takes_seconds_at_most(library: Path, tmp_path: Path) -> None:
    for took in in_two_processes(end, library, tmp_path).values():
        assert max(took.values()) < 2 * PATIENCE + 1, took
