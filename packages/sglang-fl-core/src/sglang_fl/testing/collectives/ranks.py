"""Runs the ranks and gathers what they wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from sglang_fl.testing.configuration import clean_environment
from sglang_fl.testing.processes import free_port
from sglang_fl.testing.subject import Subject

SIZE = 2
_SECONDS = 300


class Ranks:
    """What every rank wrote.

    Args:
        answers: of each rank, case -> ``"ok"``, ``"not offered: ..."`` or what is wrong.
        logs: of each rank, all that it printed.
    """

    def __init__(self, answers: list[dict[str, str]], logs: list[str]) -> None:
        self._answers = answers
        self._logs = logs

    def problem(self, case: str) -> str | None:
        """What is wrong with a case, rank by rank, or None."""
        told = [
            f"rank {rank}: {answers.get(case) or self._silence(rank)}"
            for rank, answers in enumerate(self._answers)
            if not answers.get(case, "").startswith(("ok", "not offered"))
        ]
        return "\n".join(told) or None

    def absence(self, case: str) -> str | None:
        """Why a case was not run, or None."""
        answer = self._answers[0].get(case, "")
        return answer if answer.startswith("not offered") else None

    def _silence(self, rank: int) -> str:
        last = next(reversed(self._answers[rank]), "nothing")
        return f"it ended, or hung, after {last}; the end of its log:\n{self._logs[rank][-2000:]}"


def run_ranks(subject: Subject, folder: Path) -> Ranks:
    """Runs all cases in ``SIZE`` processes. What hangs is killed, and has no answer."""
    job = json.dumps(
        {
            "folder": str(folder),
            "port": free_port(),
            "size": SIZE,
            "plugin": subject.requirements.plugin,
            "platform": subject.platform.name,
            "communicator": subject.requirements.communicator,
        }
    )
    logs = [folder / f"{rank}.log" for rank in range(SIZE)]
    processes = [_start(job, rank, log) for rank, log in enumerate(logs)]
    deadline = time.monotonic() + _SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    answers = [_read(folder / f"{rank}.jsonl") for rank in range(SIZE)]
    return Ranks(answers, [log.read_text(errors="replace") for log in logs])


def _start(job: str, rank: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        command = [sys.executable, "-m", "sglang_fl.testing.collectives.rank", job, str(rank)]
        return subprocess.Popen(command, env=clean_environment({}), stdout=output, stderr=subprocess.STDOUT)


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(json.loads(line) for line in lines)
