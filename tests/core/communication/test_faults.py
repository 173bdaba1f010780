"""What becomes of real processes when one of them fails: each ends in time, with a message, and none hangs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.served import ServedGroup
from sglang_fl.records import Answer, Communicator
from sglang_fl.reference.communicator import TorchCollectives
from tests.groups import agree_on, group_of_all, serve
from tests.ranks import Ended, die, run_ranks

SIZE = 3
LIMIT = 3.0
"""Seconds that a communicator of these tests has to start. A rank is given up after twice that."""
STRICT = {"STRICT": "1"}


def settle(create: Callable[[Group], Any], available: Callable[[], Answer], variables: dict[str, str]) -> str:
    """The name of what this rank's group settles on, and what it passed over, after a sum by it."""
    group = group_of_all(LIMIT)
    agreed = agree_on(group, Communicator(name="acme", create=create, is_available=available), **variables)
    if agreed.collectives is not None:
        assert summed(serve(group, agreed.name, agreed.collectives)) == SIZE
    dist.barrier(group.cpu_group)  # the others may still be reading from the store, which rank 0 holds
    return "; ".join((agreed.name, *(": ".join(each) for each in agreed.passed_over)))


def summed(served: ServedGroup) -> float:
    one = torch.ones(2)
    served.all_reduce(one)
    return float(one[0])


def with_library_but_on_rank_1() -> Answer:
    return "libacme.so is not found" if dist.get_rank() == 1 else True


def library_missing(rank: int, variables: dict[str, str]) -> str:
    return settle(TorchCollectives, with_library_but_on_rank_1, variables)


def test_a_library_that_is_missing_on_one_rank_leaves_all_with_sglangs_own(tmp_path: Path) -> None:
    ended = run_ranks(library_missing, SIZE, tmp_path, {}, within=30)

    assert {rank.answer for rank in ended} == {"gloo; acme: rank 1: not available: libacme.so is not found"}


def test_a_library_that_is_missing_on_one_rank_stops_all_when_strict(tmp_path: Path) -> None:
    for rank in run_ranks(library_missing, SIZE, tmp_path, STRICT, within=30):
        assert rank.status == 1
        assert "CommunicatorError: group tp:0" in rank.log
        assert "found rank 1: not available: libacme.so is not found. To do: " in rank.log


def dying_in_create(rank: int, victim: int) -> str:
    def create(group: Group) -> TorchCollectives:
        if group.rank == victim:
            die()
        return TorchCollectives(group)

    return settle(create, lambda: True, {})


@pytest.mark.parametrize(
    ("victim", "found"),
    [
        (1, "found no answer from rank 1 within 6 s"),
        (0, "the store of the ranks, which the job's rank 0 holds, is gone"),
    ],
)
def test_a_rank_that_dies_while_it_starts_stops_all_others(victim: int, found: str, tmp_path: Path) -> None:
    ended = run_ranks(dying_in_create, SIZE, tmp_path, victim, within=2 * LIMIT + 10)

    assert ended.pop(victim).status == -9
    for rank in ended:
        assert rank.status == 1, rank.log
        assert "CommunicatorError: group tp:0" in rank.log
        assert found in rank.log


def dying_before_a_collective(rank: int) -> float:
    served = serve_all()
    assert summed(served) == SIZE
    if rank == 1:
        die()
    return summed(served)


def serve_all(make: Callable[[Group], Any] = TorchCollectives) -> ServedGroup:
    group = group_of_all(LIMIT)
    return serve(group, "acme", make(group))


def test_a_rank_that_dies_in_a_collective_ends_it_for_all_others(tmp_path: Path) -> None:
    ended = run_ranks(dying_before_a_collective, SIZE, tmp_path, within=20)

    assert ended.pop(1).status == -9
    for rank in ended:
        assert rank.status == 1, rank.log
        assert "asked for all_reduce by communicator 'acme'; found the ranks are out of step" in rank.log


class RaisingOnce(TorchCollectives):
    """Its second sum raises in rank 1, and never again."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self._calls = 0

    def all_reduce(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - as in the protocol
        self._calls += 1
        if self._calls == 2 and dist.get_rank() == 1:
            msg = "no luck"
            raise RuntimeError(msg)
        super().all_reduce(output, input)


def raising_once(rank: int) -> tuple[float, list[str], float]:
    """The sum before, what each attempt after it says, and how long they take. The process lives on."""
    served = serve_all(RaisingOnce)
    before, began, said = summed(served), time.monotonic(), []
    for _ in range(3):
        try:
            summed(served)
        except CommunicatorError as error:
            said.append(str(error))
    with pytest.raises(CommunicatorError):  # it is not even taken any more, so that nobody counts on it
        served.refusal("all_reduce", torch.ones(2))
    seconds = time.monotonic() - began
    time.sleep(3)  # the others must not be freed by the end of this process alone
    return before, said, seconds


def test_a_collective_that_raises_once_ends_the_group_in_every_rank_though_all_live_on(tmp_path: Path) -> None:
    ended = run_ranks(raising_once, SIZE, tmp_path, within=30)

    assert [rank.status for rank in ended] == [0] * SIZE, [rank.log for rank in ended]
    for number, (before, said, seconds) in enumerate(rank.answer for rank in ended):
        assert before == SIZE
        assert len(said) == 3, "nobody computes on with what is out of step"
        assert all(f"rank {number}: asked for all_reduce" in one for one in said)
        assert all("rank 1 left it in all_reduce (RuntimeError: no luck)" in one for one in said), said
        assert seconds < 2.5
        assert "can no longer be used: rank 1 left it in all_reduce" in ended[number].log


FAILED: list[str] = []


def failing_to_start_once(rank: int) -> list[str]:
    def create(group: Group) -> TorchCollectives:
        if rank == 1 and not FAILED:
            FAILED.append(group.name)
            msg = "busy"
            raise RuntimeError(msg)
        return TorchCollectives(group)

    return [settle(create, lambda: True, {}) for _ in range(2)]


def test_a_start_that_fails_once_costs_one_group_its_communicator_and_not_the_next(tmp_path: Path) -> None:
    ended: list[Ended] = run_ranks(failing_to_start_once, SIZE, tmp_path, within=30)

    assert [rank.answer for rank in ended] == [["gloo; acme: rank 1: RuntimeError: busy", "acme"]] * SIZE


def meeting(rank: int, folder: Path, wrong: bool, variables: dict[str, str]) -> str:
    """Ranks that find each other by a unique id, which comes to rank 1 as another."""

    def create(group: Group) -> TorchCollectives:
        unique_id = group.share(os.urandom(8) if rank == 0 else b"")[0]
        name = (unique_id[::-1] if wrong and rank == 1 else unique_id).hex()
        (folder / f"{name}-{rank}").touch()
        while len(list(folder.glob(f"{name}-*"))) < SIZE:
            time.sleep(0.05)
        return TorchCollectives(group)

    return settle(create, lambda: True, variables)


def test_ranks_with_one_unique_id_meet(tmp_path: Path) -> None:
    ended = run_ranks(meeting, SIZE, tmp_path, tmp_path, False, {}, within=30)

    assert [rank.answer for rank in ended] == ["acme"] * SIZE


def test_a_wrong_unique_id_on_one_rank_leaves_all_with_sglangs_own_within_the_time_limit(tmp_path: Path) -> None:
    ended = run_ranks(meeting, SIZE, tmp_path, tmp_path, True, {}, within=2 * LIMIT + 20)

    assert {rank.answer for rank in ended} == {"gloo; acme: every rank: its create has not returned within 3 s"}


def test_a_wrong_unique_id_on_one_rank_stops_all_when_strict(tmp_path: Path) -> None:
    for rank in run_ranks(meeting, SIZE, tmp_path, tmp_path, True, STRICT, within=2 * LIMIT + 20):
        assert rank.status == 1
        assert "CommunicatorError: group tp:0" in rank.log
