from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from benchmarks.cores import drawn, move, on

CORES = os.sched_getaffinity(0)


@pytest.mark.parametrize("size", [1, 2, 4096])
def test_sets_are_of_this_process_s_cores_as_many_as_asked_for_or_all(size: int) -> None:
    sets = drawn(5, size)
    assert len(sets) == 5
    assert all(its <= CORES and len(its) == min(size, len(CORES)) for its in sets)


def test_a_thread_runs_where_it_is_told_and_afterwards_where_it_did() -> None:
    core = {max(CORES)}
    with on(core):
        assert os.sched_getaffinity(0) == core
    assert os.sched_getaffinity(0) == CORES


def test_every_thread_of_a_process_moves() -> None:
    started, done, seen = threading.Event(), threading.Event(), []

    def wait() -> None:
        started.set()
        done.wait()
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    try:
        move(psutil.Process(), {min(CORES)})
        assert os.sched_getaffinity(0) == {min(CORES)}
    finally:
        done.set()
        thread.join()
        move(psutil.Process(), CORES)
    assert seen == [{min(CORES)}]


def test_a_process_that_has_ended_is_let_be() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        process = psutil.Process(child.pid)
    move(process, CORES)
