"""Real processes over gloo: every collective of the reference communicator, for any tensor."""

from __future__ import annotations

from typing import Any

import pytest

from sglang_fl.reference.communicator import create
from tests.collective_cases import CASES, run_cases
from tests.groups import group_of_all, serve
from tests.ranks import Ended, run_ranks

SIZE = 3


def serve_cases(rank: int) -> dict[str, str]:
    group = group_of_all()
    return run_cases(serve(group, "torch", create(group)))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[Ended]:
    """How every rank ended that ran all cases."""
    return run_ranks(serve_cases, SIZE, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", CASES)
def test_a_collective_gives_every_rank_what_it_should(name: str, ended: list[Ended]) -> None:
    answers: list[Any] = [rank.answer and rank.answer[name] for rank in ended]
    assert answers == ["ok"] * SIZE, ended[0].log
