"""Where threads run. On a shared host one core takes half as long again as another, and a busy thread stays on its own.

So what takes the host's time is timed on several cores, and the best counts.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import psutil


def drawn(sets: int, size: int) -> list[set[int]]:
    """Sets of so many of the cores that this process may run on, at random; of all where there are no more."""
    cores = sorted(os.sched_getaffinity(0))
    return [set(random.sample(cores, min(size, len(cores)))) for _ in range(sets)]


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
    with suppress(psutil.NoSuchProcess):  # it has ended since, and so may its threads
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)
