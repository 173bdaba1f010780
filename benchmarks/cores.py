"""Where threads run. On a shared host one core takes twice as long as another, which one changes from second to second,
and a busy thread stays on its own.

So what takes the host's time is timed on the cores that are fastest just then, or on one after another.
"""

from __future__ import annotations

import os
import random
import timeit
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

TRIED = 16
"""How many cores are tried at most: it takes a few ms for each."""


def in_turn(count: int) -> Iterator[int]:
    """So many of the cores that this process may run on: each once before any comes again, in no order."""
    cores = sorted(os.sched_getaffinity(0))
    while count > 0:
        yield from random.sample(cores, min(count, len(cores)))
        count -= len(cores)


def fastest(count: int) -> set[int]:
    """So many of the cores that this process may run on: the fastest now, of those that were tried. Or all."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= count:
        return set(cores)
    tried = random.sample(cores, min(len(cores), max(TRIED, count)))
    return set(sorted(tried, key=_seconds)[:count])


def _seconds(core: int) -> float:
    with on({core}):
        return min(timeit.repeat(_work, number=1, repeat=3))


def _work() -> None:
    """Python's, as that of an engine's scheduler is: about a ms."""
    for _ in range(100_000):
        pass


@contextmanager
def on(cores: Collection[int]) -> Iterator[None]:
    """The calling thread runs on ``cores`` alone, until this ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(process: psutil.Process, cores: Collection[int]) -> None:
    """Every thread of ``process`` runs on ``cores`` alone, from now on."""
    with suppress(FileNotFoundError):  # it has ended since, and so may its threads
        for thread in Path(f"/proc/{process.pid}/task").iterdir():  # psutil reads what each has done: a hundred files
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
