"""What the ranks of a group tell each other beside their collectives, through the store that the group was made with.

A collective waits for whoever is missing, and does not say who it is. A store can be asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from weakref import WeakMethod

from torch.distributed import DistError, DistStoreError, PrefixStore, Store

LINGER = 3.0
"""Seconds that a rank which is about to end waits for what others, or its own threads, have still to hear."""


class ExchangeError(Exception):
    """The ranks cannot hear from each other. ``ranks`` are those to blame, where that is known."""

    def __init__(self, found: str, *ranks: int) -> None:
        super().__init__(found)
        self.ranks = ranks


class Exchange:
    """Rounds in which every rank tells all others one thing. Nobody waits for a rank that has said that it failed.

    Args:
        store: a connection of its own to the group's: a wait holds up its other users.
        name: of this exchange, one of its own in the store.
        rank: this process within the group.
        size: how many ranks there are.
        seconds: how long all rounds together may take.
    """

    def __init__(self, store: Store, name: str, rank: int, size: int, seconds: float) -> None:
        self._store = PrefixStore(f"sglang_fl/{name}", store)
        self._rank, self._size, self._seconds = rank, size, seconds
        self._deadline = time.monotonic() + seconds
        self._round = 0
        self._absent: tuple[int, ...] = ()

    def share(self, value: bytes) -> tuple[bytes, ...]:
        """Every rank's ``value`` of this round. Raises ExchangeError when a rank has failed, or at the time limit."""
        self._tell(b"+" + value)
        try:
            answers = self._answers()
        finally:
            with suppress(DistError):
                self._store.set(self._key(self._rank, "read"), "")
        failed = {rank: answer[1:].decode() for rank, answer in enumerate(answers) if not answer.startswith(b"+")}
        if failed:
            raise ExchangeError("; ".join(f"rank {rank}: {reason}" for rank, reason in failed.items()), *failed)
        return tuple(answer[1:] for answer in answers)

    def fail(self, reason: str) -> None:
        """Tells in place of the next round's value that this rank takes no part in it."""
        self._tell(b"-" + reason.encode())

    def linger(self) -> None:
        """Waits, not for long, until the others have read this round too: this process may end now, and hold the store.

        Then they would be told that the store is gone, and not what has really happened.
        """
        others = [self._key(rank, "read") for rank in range(self._size) if rank not in self._absent]
        with suppress(DistError):
            self._store.wait(others, timedelta(seconds=LINGER))

    def _tell(self, answer: bytes) -> None:
        self._round += 1
        try:
            self._store.set(self._key(self._rank), answer)
        except DistError as error:
            raise _lost(error) from error

    def _answers(self) -> list[bytes]:
        keys = [self._key(rank) for rank in range(self._size)]
        try:
            with suppress(DistStoreError):  # the time is over
                self._store.wait(keys, timedelta(seconds=max(self._deadline - time.monotonic(), 0.001)))
            if not self._store.check(keys):
                missing = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
                ranks = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
                self._absent = tuple(missing)
                raise ExchangeError(f"no answer from {ranks} within {self._seconds:g} s", *missing)
            return [self._store.get(key) for key in keys]
        except DistError as error:
            raise _lost(error) from error

    def _key(self, rank: int, what: str = "answer") -> str:
        return f"{self._round}/{what}/{rank}"


class Departure:
    """Tells the other ranks that this one has left the group's collectives, and hears it of them.

    Args:
        store: a connection of its own to the group's.
        rank: this process within the group.
        size: how many ranks there are.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store = PrefixStore("sglang_fl/departure", store)
        self._mine, self._all = f"to/{rank}", [f"to/{each}" for each in range(size)]
        self._listening: threading.Thread | None = None

    def tell(self, reason: str) -> str:
        """Tells all ranks that this one has left, and gives the reason of whoever was the first to leave."""
        try:
            first = str(self._store.compare_set("first", "", reason), "utf-8")
            for key in self._all:
                self._store.set(key, first)
        except DistError:  # the process that holds the store has ended, and so has the job
            return reason
        return first

    def listen(self, heard: WeakMethod[Callable[[str], None]]) -> None:
        """Calls ``heard`` with the reason, in a thread of its own, once a rank has left. :meth:`close` ends it."""
        arguments = (self._store.clone(), self._mine, heard)
        self._listening = threading.Thread(target=_listen, args=arguments, name="departures", daemon=True)
        self._listening.start()

    def close(self) -> None:
        """Listens no more. An interpreter that ends while a thread waits in torch takes the process down with it."""
        if self._listening is None:
            return
        with suppress(DistError):  # as in tell
            self._store.set(self._mine, "")
        if self._listening is not threading.current_thread():
            self._listening.join(LINGER)


def _listen(store: Store, key: str, heard: WeakMethod[Callable[[str], None]]) -> None:
    reason = _wait_for(store, key)
    hear = heard()
    if reason and hear is not None:
        hear(reason)


def _wait_for(store: Store, key: str) -> str | None:
    while True:
        try:
            store.wait([key], timedelta(days=1))
            return str(store.get(key), "utf-8")
        except DistStoreError:  # the time is over
            continue
        except DistError:  # the store is gone
            return None


def _lost(error: Exception) -> ExchangeError:
    return ExchangeError(f"the store of the ranks, which the job's rank 0 holds, is gone ({error})")
