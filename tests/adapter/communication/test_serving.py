"""Real SGLang over two ranks, their collectives by a communicator: the tokens of one rank.

That one rank of each release gives the tokens of transformers is what ``tests/adapter/releases`` shows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sglang_fl.trace_report import Report, read_report
from tests.adapter.communication.coordinators import own_backends
from tests.adapter.releases.wheels import search_path
from tests.engines import TOKENS, ask, environ_of, greedy
from tests.models import tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def wanted(model: Path) -> list[list[int]]:
    """The greedy answers of transformers, in fp32."""
    return greedy(model)


@pytest.mark.server
@pytest.mark.timeout(900)
@pytest.mark.parametrize("release", ["0.5.17", "0.5.21", "0.5.23"])
@pytest.mark.parametrize(("tp", "pp", "group"), [(2, 1, "tp:0"), (1, 2, "pp:0")], ids=["TP=2", "PP=2"])
def test_two_ranks_answer_as_one_and_every_collective_is_the_communicators(
    release: str, tp: int, pp: int, group: str, model: Path, wanted: list[list[int]], tmp_path: Path
) -> None:
    tokens, log, report = serve(release, tp, pp, model, tmp_path)

    assert tokens == wanted
    assert f"collectives of {group} (ranks 0, 1) by torch: communicator torch from SGLANG_FL_DIST_BACKEND" in log
    got = {(each.what["group"], each.what["communicator"]): len(each.processes) for each in report.communicators}
    assert got == {("world:0", "SGLang"): 2, (group, "torch"): 2}
    rows = report.collectives
    assert {(row.group, row.communicator, row.reason) for row in rows} == {(group, "torch", None)}
    assert sum(row.calls for row in rows) >= 2 * TOKENS, "both ranks have something to say for each token"


def serve(release: str, tp: int, pp: int, model: Path, folder: Path) -> tuple[list[list[int]], str, Report]:
    """The tokens that the release's engine answers with, all that its processes print, and their trace."""
    trace = folder / "trace"
    environ = {**environment(release, trace), "SGLANG_CPU_OMP_THREADS_BIND": cores(release, tp)}
    answered, log = ask(sys.executable, model, folder, environ, tp, pp)
    assert answered["version"] == release
    return answered["tokens"], log, read_report([trace])


def cores(release: str, tp: int) -> str:
    """The cores of each rank; 0.5.17 counts the ranks of one pipeline stage alone."""
    return "0-1" if release == "0.5.17" and tp == 1 else "0|1"


def environment(release: str, trace: Path) -> dict[str, str]:
    """For the release, with core alone, and its communicator asked for."""
    path = [*search_path(release), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **environ_of(release),
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "SGLANG_FL_PLATFORM": "cpu",
        "SGLANG_FL_DISABLED_PLUGINS": ",".join(own_backends()),
        "SGLANG_FL_STRICT": "1",
        "SGLANG_FL_DIST_BACKEND": "torch",
        "SGLANG_FL_TRACE": "select,calls",
        "SGLANG_FL_TRACE_DIR": str(trace),
        "TORCHDYNAMO_DISABLE": "1",  # each rank would spend 10 seconds to compile how it looks up its embeddings
    }
