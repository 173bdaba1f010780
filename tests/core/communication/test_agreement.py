"""Ranks that settle on a communicator: threads here, each with a connection of its own to one store.

``test_faults`` has what becomes of ranks that die, and needs processes for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.distributed import PrefixStore, Store, TCPStore

from sglang_fl.communication.agreement import Agreed, agree
from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.selection import CommunicatorSelection
from sglang_fl.records import Communicator
from tests.groups import selection

SIZE = 3


class Started:
    """What a create of these tests returns."""

    graph_safe = True

    def __init__(self, group: Group, dtypes: Any = None) -> None:
        self.group, self.dtypes, self.aborted = group, dtypes or {}, False

    def batch(self) -> None: ...

    def destroy(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(scope="module")
def connections() -> Iterator[list[TCPStore]]:
    """Each rank's connection to one store: a machine may take seconds for one."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield [TCPStore("127.0.0.1", server.port, is_master=False) for _ in range(SIZE)]


@pytest.fixture
def stores(connections: list[TCPStore], request: pytest.FixtureRequest) -> list[Store]:
    """The same, with keys of this test's own."""
    return [PrefixStore(request.node.nodeid, connection) for connection in connections]


def settle(
    stores: list[Store], *ranks: CommunicatorSelection | None, timeout: float = 10
) -> list[Agreed | CommunicatorError | None]:
    """What each rank settles on or raises; a rank of None never comes."""

    def one(rank: int, wanted: CommunicatorSelection | None) -> Agreed | CommunicatorError | None:
        group: Any = Group("tp:0", rank, (4, 5, 6), torch.device("cpu"), timeout, None, None, None)  # type: ignore[arg-type]
        try:
            return None if wanted is None else agree(group, wanted, stores[rank])
        except CommunicatorError as error:
            return error

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, range(len(ranks)), ranks))


def the_agreed(answers: list[Any]) -> tuple[str, str]:
    """The one name that all ranks settled on, and what they passed over before."""
    (told,) = {(answer.name, "; ".join(": ".join(each) for each in answer.passed_over)) for answer in answers}
    return told


def communicator(name: str, create: Callable[[Group], Any] = Started, **fields: Any) -> Communicator:
    return Communicator(name=name, create=create, **fields)


BEST, NEXT = communicator("best", priority=120), communicator("next", priority=110)
NOT_HERE = communicator("best", priority=120, is_available=lambda: "no library")


def failing_on(rank: int, error: BaseException) -> Callable[[Group], Any]:
    def create(group: Group) -> Started:
        if group.rank == rank:
            raise error
        return Started(group)

    return create


def test_every_rank_gets_its_own_end_of_the_best(stores: list[Store]) -> None:
    answers = settle(stores, *[selection(NEXT, BEST)] * SIZE)

    assert the_agreed(answers) == ("best", "")
    ends = [answer.collectives for answer in answers if isinstance(answer, Agreed)]
    assert [(end.group.rank, end.group.ranks, end.aborted) for end in ends] == [(r, (4, 5, 6), False) for r in range(3)]


def test_what_one_rank_does_not_have_nobody_takes(stores: list[Store]) -> None:
    has, has_not = selection(BEST, NEXT), selection(NOT_HERE, NEXT)

    assert the_agreed(settle(stores, has, has_not, has)) == ("next", "best: rank 1: not available: no library")


def test_what_one_rank_does_not_even_offer_nobody_takes(stores: list[Store]) -> None:
    has, has_not = selection(BEST, NEXT), selection(NEXT)

    assert the_agreed(settle(stores, has, has, has_not)) == ("next", "best: rank 2: no plugin offers it there")


def test_one_rank_that_fails_to_start_takes_all_to_the_next(stores: list[Store]) -> None:
    started: list[Started] = []

    def create(group: Group) -> Started:
        if group.rank == 2:
            raise OSError("no device")
        started.append(Started(group))
        return started[-1]

    wanted = selection(communicator("best", create, priority=120), NEXT)
    assert the_agreed(settle(stores, *[wanted] * SIZE)) == ("next", "best: rank 2: OSError: no device")
    assert [one.aborted for one in started] == [True, True], "what has started is ended"


def test_sglangs_own_is_left_when_nothing_else_starts(stores: list[Store]) -> None:
    broken = [communicator(name, failing_on(0, SystemExit("gave up"))) for name in ("one", "two")]

    answers = settle(stores, *[selection(*broken)] * SIZE)

    assert the_agreed(answers)[0] == "gloo"
    assert the_agreed(answers)[1] == "one: rank 0: SystemExit: gave up; two: rank 0: SystemExit: gave up"
    assert all(isinstance(answer, Agreed) and answer.collectives is None for answer in answers)


@pytest.mark.parametrize("named", [{}, {"DIST_BACKEND": "best"}])
def test_when_strict_all_stop_with_the_rank_and_its_reason(stores: list[Store], named: dict[str, str]) -> None:
    broken = communicator("best", failing_on(1, OSError("no device")), priority=120)

    for rank, error in enumerate(settle(stores, *[selection(broken, NEXT, STRICT="1", **named)] * SIZE)):
        assert isinstance(error, CommunicatorError)
        assert error.who == f"group tp:0 (ranks 4, 5, 6 of the job), rank {rank}"
        assert error.found == "rank 1: OSError: no device"


def test_when_strict_one_rank_without_the_library_stops_all(stores: list[Store]) -> None:
    has, has_not = selection(BEST, STRICT="1"), selection(NOT_HERE, STRICT="1")

    answers = settle(stores, has, has_not, has)

    assert {str(answer.found) for answer in answers if isinstance(answer, CommunicatorError)} == {
        "rank 1: not available: no library"
    }
    assert not [answer for answer in answers if isinstance(answer, Agreed)]


def test_strict_does_not_mind_what_no_rank_has_unless_the_user_names_it(stores: list[Store]) -> None:
    unnamed = settle(stores, *[selection(NOT_HERE, NEXT, STRICT="1")] * SIZE)
    stores = [PrefixStore("named", store) for store in stores]
    named = settle(stores, *[selection(NOT_HERE, NEXT, STRICT="1", DIST_BACKEND="best")] * SIZE)

    assert the_agreed(unnamed) == ("next", "best: every rank: not available: no library")
    assert all(isinstance(error, CommunicatorError) and "every rank" in error.found for error in named)


def test_ranks_share_what_they_need_to_start(stores: list[Store]) -> None:
    def create(group: Group) -> Started:
        identity = group.share(b"the id" if group.rank == 0 else b"")[0]
        sizes = group.share(bytes([group.rank]))
        return Started(group, {} if (identity, sizes) == (b"the id", (b"\0", b"\1", b"\2")) else None)

    answers = settle(stores, *[selection(communicator("best", create))] * SIZE)
    assert the_agreed(answers) == ("best", "")
    assert all(isinstance(answer, Agreed) and answer.collectives.dtypes == {} for answer in answers)  # type: ignore[union-attr]


def test_no_rank_waits_for_the_share_of_one_that_has_failed(stores: list[Store]) -> None:
    def create(group: Group) -> Started:
        if group.rank == 0:
            raise OSError("no library")
        group.share(b"")
        return Started(group)

    began = time.monotonic()
    answers = settle(stores, *[selection(communicator("best", create, priority=120), NEXT)] * SIZE, timeout=30)

    assert the_agreed(answers) == ("next", "best: rank 0: OSError: no library"), "and nobody else is to blame"
    assert time.monotonic() - began < 10


def test_a_rendezvous_that_does_not_end_is_over_at_the_time_limit(stores: list[Store]) -> None:
    over = threading.Event()
    late: list[Started] = []

    def create(group: Group) -> Started:
        if group.rank == 1:
            over.wait(20)
            late.append(Started(group))
            return late[0]
        return Started(group)

    answers = settle(stores, *[selection(communicator("best", create, priority=120), NEXT)] * SIZE, timeout=1)

    assert the_agreed(answers) == ("next", "best: rank 1: its create has not returned within 1 s")
    over.set()
    deadline = time.monotonic() + 10
    while not (late and late[0].aborted) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert late[0].aborted, "what comes too late is ended"


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_rank_that_never_comes_stops_all_others_and_is_named(stores: list[Store], strict: str) -> None:
    wanted = selection(BEST, STRICT=strict)
    began = time.monotonic()

    first, _, last = settle(stores, wanted, None, wanted, timeout=1)

    assert time.monotonic() - began < 8
    for error in (first, last):
        assert isinstance(error, CommunicatorError)
        assert error.found == "no answer from rank 1 within 1 s"
        assert "see the log of the rank that does not answer" in error.do


def test_ranks_with_different_settings_stop_and_say_which(stores: list[Store]) -> None:
    answers = settle(stores, selection(BEST), selection(BEST), selection(BEST, STRICT="1"))

    for error in answers:
        assert isinstance(error, CommunicatorError)
        assert "rank 0: communicator None, strict False" in error.found
        assert "rank 2: communicator None, strict True" in error.found


def test_ranks_that_declare_different_things_do_not_use_it(stores: list[Store]) -> None:
    def create(group: Group) -> Started:
        made = Started(group)
        made.graph_safe = group.rank == 0
        return made

    answers = settle(stores, *[selection(communicator("best", create, priority=120), NEXT)] * SIZE)
    name, why = the_agreed(answers)
    assert name == "next"
    assert "rank 1: it declares graph_safe: False; rank 0 declares graph_safe: True" in why


def test_what_is_misdeclared_is_not_used(stores: list[Store]) -> None:
    create: Any = lambda group: Started(group, {"allreduce": frozenset()})  # noqa: E731

    answers = settle(stores, *[selection(communicator("best", create, priority=120), NEXT)] * SIZE)
    assert the_agreed(answers)[1].startswith("best: every rank: Started declares 'allreduce', which is no collective")


def test_a_function_that_cannot_be_imported_is_a_failure_to_start(stores: list[Store]) -> None:
    record = Communicator(name="best", create="no_such_package:create", priority=120)

    answers = settle(stores, *[selection(record, NEXT)] * SIZE)
    assert the_agreed(answers) == (
        "next",
        "best: every rank: ModuleNotFoundError: No module named 'no_such_package'",
    )
