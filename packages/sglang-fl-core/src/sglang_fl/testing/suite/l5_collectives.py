"""L5: the communicator's collectives, between two processes with a device each."""

from __future__ import annotations

import pytest

from sglang_fl.testing.collectives.cases import CASES
from sglang_fl.testing.collectives.ranks import Ranks
from sglang_fl.testing.failure import Nonconformance
from sglang_fl.testing.subject import Subject


@pytest.mark.L5
@pytest.mark.parametrize("case", ["create", *CASES, "destroy"])
def test_every_rank_gets_what_it_should(subject: Subject, ranks: Ranks, case: str) -> None:
    """Every dtype that is declared, parts of several sizes; what is given stays as it was."""
    absent = ranks.absence(case)
    if absent is not None:
        pytest.skip(f"{absent}: SGLang's own serves it")
    problem = ranks.problem(case)
    if problem is not None:
        do = "mend it, or do not declare in dtypes what it cannot do"
        raise Nonconformance(f"communicator {subject.requirements.communicator!r}", asked=case, found=problem, do=do)


@pytest.mark.L5
def test_some_collective_is_offered(subject: Subject, ranks: Ranks) -> None:
    """A communicator that offers none serves nobody."""
    offered = [case for case in CASES if ranks.absence(case) is None]
    assert offered, f"communicator {subject.requirements.communicator!r} offers no collective: declare some in dtypes"
