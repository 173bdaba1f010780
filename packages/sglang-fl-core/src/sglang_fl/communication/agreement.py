"""How the ranks of a group settle on one communicator, and start it, before any of them uses it.

Each rank says what it could start. The group takes the best that all have; when one rank fails to start that, all take
the next, or, when strict, all stop. No rank is left waiting: whoever fails says so, and whoever says nothing is named
when the time is over.
"""

from __future__ import annotations

import json
import logging
import platform
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning  # Python's own only from 3.11
from dataclasses import asdict, dataclass, replace

import torch
from torch.distributed import Store

from sglang_fl.communication.collectives import Collectives, CommunicatorError, Group, declaration, misdeclared
from sglang_fl.communication.exchange import Exchange, ExchangeError
from sglang_fl.communication.selection import CommunicatorSelection
from sglang_fl.records import Communicator

logger = logging.getLogger(__name__)

_SEE_ITS_LOG = "see the log of the rank that does not answer"

Failures = Mapping[int, str]
"""Rank -> why it cannot."""


@dataclass(frozen=True)
class Agreed:
    """What the ranks of a group settled on.

    Attributes:
        name: what settings call it.
        collectives: this rank's end of it; None where SGLang's own serves.
        passed_over: what was better, and why it cannot be.
    """

    name: str
    collectives: Collectives | None
    passed_over: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Plan:
    """What one rank brings to the talks: its order, and why it could not start some of it."""

    wish: str
    order: Sequence[str]
    refused: Mapping[str, str]
    host: str


@dataclass(frozen=True)
class _Outcome:
    """How one rank's start ended: why it failed, whether only because another rank did, and what it declares."""

    failed: str | None = None
    follows: bool = False
    declares: str | None = None


def agree(group: Group, selection: CommunicatorSelection, store: Store) -> Agreed:
    """Settles on the communicator of ``group``, and starts it. Every rank of the group calls it.

    ``store`` is a connection of its own to the store that the group was made with: a wait holds up its other users.
    Takes at most twice the group's time limit for each communicator that has to be tried.

    Raises:
        CommunicatorError: in every rank, when a rank is missing, when the ranks' settings differ, and, when strict,
            when a rank cannot start what the group should have.
    """
    return _Talks(group, selection, store).settle()


class _Talks:
    def __init__(self, group: Group, selection: CommunicatorSelection, store: Store) -> None:
        self._group, self._selection, self._store = group, selection, store
        self._hosts: Sequence[str] = ()

    def settle(self) -> Agreed:
        plans = self._plans()
        records = {verdict.name: verdict.record for verdict in self._selection.order}
        passed_over: list[tuple[str, str]] = []
        for name in plans[0].order:
            record = records.get(name)
            failures = _refusals(name, plans)
            everywhere = len(failures) == self._group.size
            collectives = None
            if not failures and record is not None:
                collectives, failures = self._start(record)
            if not failures:
                return Agreed(name, collectives, tuple(passed_over))
            self._pass_over(name, failures, nowhere=everywhere)
            passed_over.append((name, self._told(failures)))
        raise self._error("a communicator", "; ".join(f"{name}: {why}" for name, why in passed_over))

    def _plans(self) -> list[_Plan]:
        order = self._selection.order
        mine = _Plan(
            self._selection.wish,
            tuple(verdict.name for verdict in order),
            {verdict.name: verdict.refused for verdict in order if verdict.refused is not None},
            platform.node(),
        )
        exchange = self._exchange("plans", self._group.timeout)
        try:
            plans = [_Plan(**json.loads(plan)) for plan in exchange.share(json.dumps(asdict(mine)).encode())]
        except ExchangeError as error:
            do = f"{_SEE_ITS_LOG}; it needs the plugins and settings that this one has"
            raise self._error("every rank's communicators", str(error), do) from error
        self._hosts = [plan.host for plan in plans]
        for rank, plan in enumerate(plans):
            if plan.wish != plans[0].wish:
                found = f"{self._name(0)}: {plans[0].wish}; {self._name(rank)}: {plan.wish}"
                raise self._error("the same settings in every rank", found, "set in every rank what is set in one")
        return plans

    def _start(self, record: Communicator) -> tuple[Collectives | None, Failures]:
        """This rank's end of the communicator, or the ranks that have none and why."""
        exchange = self._exchange(record.name, self._group.timeout)
        outcomes = self._exchange(f"{record.name}/outcome", 2 * self._group.timeout)
        made, mine = _outcome(record, replace(self._group, share=exchange.share))
        try:
            if mine.failed is not None:
                exchange.fail(mine.failed)
            told = outcomes.share(json.dumps(asdict(mine)).encode())
            failures = _failures([_Outcome(**json.loads(each)) for each in told])
        except ExchangeError as error:
            _abort(made)
            raise self._error(f"communicator {record.name!r} in every rank", str(error), _SEE_ITS_LOG) from error
        if failures:
            _abort(made)
            return None, failures
        return made, failures

    def _pass_over(self, name: str, failures: Failures, *, nowhere: bool) -> None:
        asked, told = self._selection.asked == name, self._told(failures)
        if self._selection.strict and (asked or not nowhere):
            raise self._error(f"communicator {name!r} ({self._selection.rule}; strict)", told)
        level = logging.ERROR if asked else logging.INFO if nowhere else logging.WARNING
        logger.log(level, "group %s goes without communicator %s: %s", self._group.name, name, told)

    def _told(self, failures: Failures) -> str:
        if len(failures) == self._group.size and len(set(failures.values())) == 1:
            return f"every rank: {failures[0]}"
        return "; ".join(f"{self._name(rank)}: {why}" for rank, why in sorted(failures.items()))

    def _name(self, rank: int) -> str:
        several = len(set(self._hosts)) > 1
        return f"rank {rank} on {self._hosts[rank]}" if several else f"rank {rank}"

    def _exchange(self, name: str, seconds: float) -> Exchange:
        self._last = Exchange(self._store, name, self._group.rank, self._group.size, seconds)
        return self._last

    def _error(self, asked: str, found: str, do: str | None = None) -> CommunicatorError:
        self._last.linger()
        ranks = ", ".join(map(str, self._group.ranks))
        return CommunicatorError(
            f"group {self._group.name} (ranks {ranks} of the job), rank {self._group.rank}",
            asked=asked,
            found=found,
            do=do or "mend what the rank says, or choose another communicator with SGLANG_FL_DIST_BACKEND",
        )


def _refusals(name: str, plans: Sequence[_Plan]) -> Failures:
    why = [plan.refused.get(name) if name in plan.order else "no plugin offers it there" for plan in plans]
    return {rank: reason for rank, reason in enumerate(why) if reason is not None}


def _failures(outcomes: Sequence[_Outcome]) -> Failures:
    failed = {rank: outcome for rank, outcome in enumerate(outcomes) if outcome.failed is not None}
    causes = {rank: outcome for rank, outcome in failed.items() if not outcome.follows} or failed
    if causes:
        return {rank: str(outcome.failed) for rank, outcome in causes.items()}
    first = outcomes[0].declares
    differing = {rank: outcome.declares for rank, outcome in enumerate(outcomes) if outcome.declares != first}
    return {rank: f"it declares {declares}; rank 0 declares {first}" for rank, declares in differing.items()}


def _outcome(record: Communicator, group: Group) -> tuple[Collectives | None, _Outcome]:
    try:
        made = _create(record, group)
    except ExchangeError as error:
        return None, _Outcome(str(error), follows=True)
    except (Exception, SystemExit) as error:  # an SDK may give up in its own way
        return None, _Outcome(str(error) if isinstance(error, _Overdue) else f"{type(error).__name__}: {error}")
    wrong = misdeclared(made)
    return made, _Outcome(wrong) if wrong else _Outcome(declares=declaration(made))


class _Overdue(Exception):
    """A ``create`` has not returned in time."""


def _create(record: Communicator, group: Group) -> Collectives:
    """Calls ``create`` in a thread of its own, since a library's rendezvous may never end."""
    future: Future[Collectives] = Future()

    def run() -> None:
        try:
            if group.device.type != "cpu":
                torch.get_device_module(group.device).set_device(group.device)
            future.set_result(record.load()(group))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"create {record.name} for {group.name}", daemon=True).start()
    try:
        return future.result(group.timeout)
    except StillRunning:
        if future.done():
            raise  # its own
        future.add_done_callback(lambda late: _abort(None if late.exception() else late.result()))
        msg = f"its create has not returned within {group.timeout:g} s"
        raise _Overdue(msg) from None


def _abort(made: Collectives | None) -> None:
    if made is None:
        return
    try:
        made.abort()
    except Exception:
        logger.exception("a communicator that is not to be used could not be ended")
