from __future__ import annotations

from pathlib import Path
from typing import Any

from sglang_fl.trace_report import read_report
from tests.adapter.communication.coordinators import PRELOAD, coordinate, of, start_session
from tests.ranks import run_ranks
from tests.third_parties import third_party

SIZE = 2

BEST = """
    from sglang_fl import BackendPriority, Communicator, hookimpl
    from sglang_fl.reference.communicator import TorchCollectives

    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="best", create=TorchCollectives, priority=BackendPriority.DEFAULT)]
"""


def add_up(rank: int, site: Path, trace: Path, variables: dict[str, str]) -> Any:
    """By a group as ``--enable-torch-symm-mem`` has SGLang make it, where there is no such memory."""
    from sglang.srt.distributed.device_communicators import torch_symm_mem

    torch_symm_mem.torch_symm_mem_available = False
    session = start_session(site, TRACE="select,calls", TRACE_DIR=str(trace), **variables)
    group = coordinate(session, use_torch_symm_mem_all_reduce=True)
    total = group.all_reduce(of(rank, 4))
    group.barrier()
    group.destroy()
    return total.tolist()


def run(folder: Path, **variables: str) -> dict[str, Any]:
    site, trace = third_party(folder, "acme-chip", BEST), folder / "trace"
    ended = run_ranks(add_up, SIZE, folder / "ranks", site, trace, variables, within=200, preload=PRELOAD)
    assert [rank.status for rank in ended] == [0] * SIZE, ended[0].log
    assert [rank.answer for rank in ended] == [(of(0, 4) + of(1, 4)).tolist()] * SIZE
    (settled,) = read_report([trace]).communicators
    return dict(settled.what)


def test_a_group_for_which_the_user_asks_sglang_for_another_way_stays_sglangs_and_says_so(tmp_path: Path) -> None:
    settled = run(tmp_path)
    assert settled["communicator"] != "best"
    assert settled["reason"].startswith("--enable-torch-symm-mem asks for SGLang's own; SGLANG_FL_DIST_BACKEND=NAME")


def test_where_the_user_names_a_communicator_too_it_serves_and_the_argument_is_told_to_be_in_vain(
    tmp_path: Path,
) -> None:
    settled = run(tmp_path, DIST_BACKEND="best")
    assert settled["communicator"] == "best"
    assert "--enable-torch-symm-mem is in vain" in settled["reason"]
