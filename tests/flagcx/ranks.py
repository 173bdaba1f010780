"""Ranks of a group as threads of this process, on the stand-in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from sglang_fl_flagcx.communicator import FlagCX
from sglang_fl_flagcx.library import Library
from sglang_fl_flagcx.streams import Streams
from tests.flagcx.conftest import StandIn

T = TypeVar("T")
STREAM = 0xABC0
"""The native handle of torch's current stream, as the stand-in is told."""

_LIMIT = 30


class Meeting:
    """Where the ranks of a group share values."""

    def __init__(self, size: int) -> None:
        self.values = [b""] * size
        self.barrier = threading.Barrier(size, timeout=_LIMIT)


@dataclass
class Rank:
    """What ``create`` is told of a group, by one of its ranks."""

    rank: int
    size: int
    device: torch.device
    meeting: Meeting

    def share(self, value: bytes) -> tuple[bytes, ...]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        return tuple(self.meeting.values)


def at_every_rank(size: int, work: Callable[[Rank], T]) -> list[T]:
    """``work`` in ``size`` threads, each with its rank; what each returned, by rank."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, Rank(rank, size, torch.device("cuda", rank), meeting)) for rank in range(size)]
        return [future.result(_LIMIT) for future in futures]


def started(standin: StandIn, rank: Rank, patience: float = 0.2) -> FlagCX:
    """FlagCX on the stand-in, with :data:`STREAM` as the current stream."""
    library = Library.load(standin.file)
    unique_id = rank.share(library.unique_id() if rank.rank == 0 else b"")[0]
    comm = library.start(rank.size, unique_id, rank.rank)
    streams = Streams(library, lambda: STREAM)
    return FlagCX(library, comm, streams, rank, graph_safe=True, patience=patience)


def alone(standin: StandIn, patience: float = 0.2) -> FlagCX:
    """The only rank of a group of one."""
    return at_every_rank(1, lambda rank: started(standin, rank, patience))[0]


def collectively(standin: StandIn, size: int, work: Callable[[FlagCX, int], T]) -> list[T]:
    """``work`` with FlagCX and its rank at every rank; then all are destroyed."""

    def run(rank: Rank) -> T:
        flagcx = started(standin, rank)
        try:
            return work(flagcx, rank.rank)
        finally:
            flagcx.destroy()

    return at_every_rank(size, run)
