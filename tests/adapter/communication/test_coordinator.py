"""SGLang's group coordinator over gloo: each method gives what it should, by the communicator or by SGLang's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_fl.trace_report import Report, read_report
from tests.adapter.communication.coordinators import CASES, PRELOAD, coordinate, run_cases, start_session
from tests.ranks import Ended, run_ranks
from tests.third_parties import third_party

SIZE = 3

PARTIAL = """
    import torch
    from sglang_fl import Communicator, hookimpl
    from sglang_fl.reference.communicator import TorchCollectives

    class Partial(TorchCollectives):
        dtypes = {"all_reduce": frozenset({torch.float32})}

    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="partial", create=Partial)]
"""
SGLANG_CAN = [
    "all_reduce",
    "all_reduce of integers",
    "all_reduce by the registered op",
    "reduce_scatter_tensor by the registered op",
    "all_gather along 0",
    "all_gather along -1",
    "all_gather into a list",
    "all_gather_into_tensor by the registered op",
    "all_to_all_single by the registered op",
    "gather",
    "broadcast_tensor_dict",
    "send_tensor_dict",
    "send_tensor_dict, asynchronously",
    "send_recv_tensor_dict",
    "all_reduce, compiled",
]
"""What SGLang's own coordinator does with CPU tensors on this platform."""


def serve_cases(rank: int, site: Path, name: str, names: list[str], trace: Path) -> dict[str, str]:
    session = start_session(site, DIST_BACKEND=name, TRACE="select,calls", TRACE_DIR=str(trace))
    group = coordinate(session)
    answers = run_cases(group, names)
    group.barrier()
    group.destroy()
    return answers


def run(folder: Path, name: str, names: list[str]) -> tuple[list[Ended], Report]:
    site = third_party(folder, "acme-chip", PARTIAL)
    ended = run_ranks(
        serve_cases, SIZE, folder / "ranks", site, name, names, folder / "trace", within=200, preload=PRELOAD
    )
    assert [rank.status for rank in ended] == [0] * SIZE, ended[0].log
    return ended, read_report([folder / "trace"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Ended], Report]:
    """All cases by a communicator that offers everything."""
    return run(tmp_path_factory.mktemp("served"), "torch", list(CASES))


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Ended], Report]:
    """What SGLang can do here, by a communicator that offers one collective of one dtype."""
    return run(tmp_path_factory.mktemp("partial"), "partial", SGLANG_CAN)


@pytest.mark.parametrize("name", CASES)
def test_a_communicator_serves_what_sglang_calls(name: str, served: tuple[list[Ended], Report]) -> None:
    assert [rank.answer[name] for rank in served[0]] == ["ok"] * SIZE


def test_nothing_that_it_offers_goes_elsewhere(served: tuple[list[Ended], Report]) -> None:
    rows = served[1].collectives
    assert {row.collective for row in rows} >= {"all_reduce", "all_gatherv", "reduce_scatterv", "isend", "all_to_all"}
    assert {(row.communicator, row.reason) for row in rows} == {("torch", None)}


@pytest.mark.parametrize("name", SGLANG_CAN)
def test_what_a_communicator_does_not_offer_sglangs_own_serves(name: str, partial: tuple[list[Ended], Report]) -> None:
    assert [rank.answer[name] for rank in partial[0]] == ["ok"] * SIZE


def test_each_collective_that_goes_elsewhere_is_counted_once_with_its_reason(
    partial: tuple[list[Ended], Report],
) -> None:
    rows = {(row.collective, row.reason): row.calls / SIZE for row in partial[1].collectives}
    assert rows == {
        ("all_reduce", None): 3,
        ("all_reduce", "partial has no all_reduce of int32"): 1,
        ("reduce_scatter", "partial does not offer reduce_scatter"): 1,
        ("all_gather", "partial does not offer all_gather"): 4,
        ("all_to_all", "partial does not offer all_to_all"): 1,
        ("send", "partial does not offer send"): 1 + 2 * 4,
        ("broadcast", "partial does not offer broadcast"): 4,
        ("isend", "partial does not offer isend"): 2 * 2 * 4,
    }


def test_the_trace_says_which_communicator_the_group_got(partial: tuple[list[Ended], Report]) -> None:
    (settled,) = partial[1].communicators
    assert settled.what == {
        "group": "tp:0",
        "ranks": tuple(range(SIZE)),
        "communicator": "partial",
        "rule": "communicator partial from SGLANG_FL_DIST_BACKEND",
        "reason": "",
    }
    assert len(settled.processes) == SIZE
