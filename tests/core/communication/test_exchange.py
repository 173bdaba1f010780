from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MethodType
from typing import Any
from weakref import WeakMethod

import pytest
from torch.distributed import PrefixStore, Store, TCPStore

from sglang_fl.communication.exchange import Departure, Exchange, ExchangeError

SIZE = 3


@pytest.fixture(scope="module")
def connections() -> Iterator[list[TCPStore]]:
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield [TCPStore("127.0.0.1", server.port, is_master=False) for _ in range(SIZE)]


@pytest.fixture
def stores(connections: list[TCPStore], request: pytest.FixtureRequest) -> list[Store]:
    return [PrefixStore(request.node.nodeid, connection) for connection in connections]


def run(stores: list[Store], *ranks: Any, seconds: float = 10) -> list[Any]:
    """What each rank's function of its exchange returns, or the error that it raises."""

    def one(rank: int) -> Any:
        try:
            return ranks[rank](Exchange(stores[rank], "test", rank, len(ranks), seconds))
        except ExchangeError as error:
            return error

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, range(len(ranks))))


def test_every_rank_gets_every_ranks_value_by_rank(stores: list[Store]) -> None:
    values = [lambda exchange, value=value: exchange.share(value) for value in (b"a", b"", b"\xff")]
    assert run(stores, *values) == [(b"a", b"", b"\xff")] * SIZE


def test_rounds_do_not_mix(stores: list[Store]) -> None:
    def rounds(exchange: Exchange) -> list[tuple[bytes, ...]]:
        return [exchange.share(bytes([number])) for number in range(5)]

    assert run(stores, *[rounds] * SIZE) == [[(bytes([number]),) * SIZE for number in range(5)]] * SIZE


def test_a_rank_that_has_failed_ends_the_others_round_at_once(stores: list[Store]) -> None:
    began = time.monotonic()
    waiting = lambda exchange: exchange.share(b"")  # noqa: E731

    first, failed, last = run(stores, waiting, lambda exchange: exchange.fail("no luck"), waiting, seconds=30)

    assert failed is None
    assert [(str(error), error.ranks) for error in (first, last)] == [("rank 1: no luck", (1,))] * 2
    assert time.monotonic() - began < 10


def test_the_ranks_that_are_missing_are_named_when_the_time_is_over(stores: list[Store]) -> None:
    nothing = lambda exchange: None  # noqa: E731

    error, *_ = run(stores, lambda exchange: exchange.share(b""), nothing, nothing, seconds=0.2)

    assert (str(error), error.ranks) == ("no answer from ranks 1, 2 within 0.2 s", (1, 2))


def test_a_store_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    exchange = Exchange(TCPStore("127.0.0.1", server.port, is_master=False), "test", 0, 2, 10)
    del server
    with pytest.raises(ExchangeError, match="the store of the ranks, which the job's rank 0 holds, is gone"):
        exchange.share(b"")


class Listener:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.called = threading.Event()

    def hear(self, reason: str) -> None:
        self.heard.append(reason)
        self.called.set()


def test_all_hear_of_the_first_that_leaves_and_only_of_that(stores: list[Store]) -> None:
    listeners = [Listener() for _ in range(SIZE)]
    departures = [Departure(store, rank, SIZE) for rank, store in enumerate(stores)]
    for departure, listener in zip(departures, listeners, strict=True):
        departure.listen(WeakMethod(listener.hear))

    assert departures[0].tell("rank 0 left") == "rank 0 left"
    assert departures[2].tell("rank 2 left") == "rank 0 left"

    for listener in listeners:
        assert listener.called.wait(10)
        assert listener.heard == ["rank 0 left"]


def listening() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "departures"]


def test_closing_ends_the_listening_of_this_rank_alone(stores: list[Store]) -> None:
    departures = [Departure(store, rank, 2) for rank, store in enumerate(stores[:2])]
    listener, others = Listener(), Listener()
    before = set(listening())
    departures[0].listen(WeakMethod(listener.hear))
    (mine,) = set(listening()) - before
    departures[1].listen(WeakMethod(others.hear))

    departures[0].close()

    mine.join(10)
    assert not mine.is_alive()
    assert departures[1].tell("bye") == "bye"
    assert others.called.wait(10)
    assert (listener.heard, others.heard) == ([], ["bye"])


def test_listening_keeps_nothing_alive(stores: list[Store]) -> None:
    listener, departure = Listener(), Departure(stores[0], 0, 1)
    heard = WeakMethod[MethodType](listener.hear)  # type: ignore[arg-type]
    departure.listen(heard)
    del listener
    assert heard() is None
    departure.close()
