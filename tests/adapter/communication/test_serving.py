"""Real SGLang over two ranks, their collectives by a communicator: the tokens of one rank.

That one rank of each release gives the tokens of transformers is what ``tests/adapter/releases`` shows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sglang_fl.trace_report import Report, read_report
from tests.adapter.communication.coordinators import own_backends
from tests.adapter.releases.wheels import search_path, source_folder
from tests.models import tiny_llama

ROOT = Path(__file__).parents[3]
PROMPTS = [[1, 5, 9, 200, 33], [7, 7, 250]]
TOKENS = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def wanted(model: Path) -> list[list[int]]:
    """The greedy answers of transformers, in fp32."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    answers = [list(prompt) for prompt in PROMPTS]
    with torch.inference_mode():
        for ids in answers:
            for _ in range(TOKENS):
                ids.append(int(reference(torch.tensor([ids])).logits[0, -1].argmax()))
    return [ids[len(prompt) :] for ids, prompt in zip(answers, PROMPTS, strict=True)]


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
    log, answer, trace = folder / "log", folder / "answer.json", folder / "trace"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.adapter.communication.engine", str(model), str(answer), str(tp), str(pp)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(release, trace), "SGLANG_CPU_OMP_THREADS_BIND": "0|1" if tp == 2 else "0-1"},
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        process.communicate(json.dumps([PROMPTS, TOKENS]).encode())
    finally:
        with suppress(ProcessLookupError):  # none of its processes is left
            os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    assert process.returncode == 0, f"SGLang {release} ended with status {process.returncode}:\n{text[-5000:]}"
    answered = json.loads(answer.read_text())
    assert answered["version"] == release
    return answered["tokens"], text, read_report([trace])


def environment(release: str, trace: Path) -> dict[str, str]:
    """This process's, without its settings of SGLang and of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG")}
    path = [*search_path(release), *filter(None, [os.environ.get("PYTHONPATH")])]
    models = (source_folder(release) / "sglang/srt/models").glob("*.py")
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "CUDA_VISIBLE_DEVICES": "",
        "SGLANG_FL_PLATFORM": "cpu",
        "SGLANG_FL_DISABLED_PLUGINS": ",".join(own_backends()),
        "SGLANG_FL_STRICT": "1",
        "SGLANG_FL_DIST_BACKEND": "torch",
        "SGLANG_FL_TRACE": "select,calls",
        "SGLANG_FL_TRACE_DIR": str(trace),
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "tests.adapter.releases.external",
        "SGLANG_DISABLED_MODEL_ARCHS": ",".join(file.stem for file in models),  # importing them takes 10 seconds
        "TORCHDYNAMO_DISABLE": "1",  # each rank would spend 10 seconds to compile how it looks up its embeddings
    }
