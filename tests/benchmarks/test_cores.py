from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from benchmarks import cores
from benchmarks.cores import fastest, in_turn, move, on

CORES = os.sched_getaffinity(0)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 4096])
def test_cores_come_in_turn_and_none_again_before_all_have_come(count: int) -> None:
    found = list(in_turn(count))
    assert len(found) == count
    for start in range(0, count, len(CORES)):
        once = found[start : start + len(CORES)]
        assert len(set(once)) == len(once)
        assert set(once) <= CORES


@pytest.mark.parametrize("count", [1, 2, 4096])
def test_the_fastest_are_as_many_of_this_process_s_cores_as_asked_for_or_all(count: int) -> None:
    its = fastest(count)
    assert its <= CORES
    assert len(its) == min(count, len(CORES))
    assert os.sched_getaffinity(0) == CORES


def test_those_are_the_fastest_that_take_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_seconds", {core: abs(core - 5) + 0.1 * core for core in range(8)}.__getitem__)
    assert fastest(3) == {4, 5, 6}


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
