"""Runs the ranks and gathers what they wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from sglang_fl.testing.configuration import clean_environment
from sglang_fl.testing.processes import free_port, running
from sglang_fl.testing.subject import Subject

SIZE = 2
RANKS = tuple(range(1, SIZE + 1))
"""In the world: other ones than within the group, as in most groups of SGLang's. The world's rank 0 hosts the store."""

_SECONDS = 300


class Ranks:
    """What every rank wrote.

    Args:
        answers: of each rank, case -> ``"ok"``, ``"not offered: ..."`` or what is wrong.
        logs: of each rank, all that it printed.
        host: all that the host of their store printed, where it has failed.
    """

    def __init__(self, answers: list[dict[str, str]], logs: list[str], host: str | None = None) -> None:
        self._answers = answers
        self._logs = logs
        self._host = host

    def problem(self, case: str) -> str | None:
        """What is wrong with a case, rank by rank, or None."""
        told = [
            f"rank {rank}: {answers.get(case) or self._silence(rank)}"
            for rank, answers in enumerate(self._answers)
            if not answers.get(case, "").startswith(("ok", "not offered"))
        ]
        if told and self._host is not None:
            told.append(f"the host of their store has ended before them; the end of its log:\n{self._host[-2000:]}")
        return "\n".join(told) or None

    def absence(self, case: str) -> str | None:
        """Why a case was not run, or None."""
        answer = self._answers[0].get(case, "")
        return answer if answer.startswith("not offered") else None

    def _silence(self, rank: int) -> str:
        last = next(reversed(self._answers[rank]), "nothing")
        return f"it ended, or hung, after {last}; the end of its log:\n{self._logs[rank][-2000:]}"


def run_ranks(subject: Subject, folder: Path) -> Ranks:
    """Runs all cases in ``SIZE`` processes. What hangs is ended, and has no answer."""
    job = json.dumps(
        {
            "folder": str(folder),
            "port": free_port(),
            "ranks": RANKS,
            "seconds": _SECONDS,
            "plugin": subject.requirements.plugin,
            "platform": subject.platform.name,
            "communicator": subject.requirements.communicator,
        }
    )
    logs, host_log = [folder / f"{rank}.log" for rank in range(SIZE)], folder / "host.log"
    with ExitStack() as all_running:
        host = all_running.enter_context(_running(host_log, "host", job))  # the first: it is ended last
        ranks = [all_running.enter_context(_running(log, "rank", job, str(rank))) for rank, log in enumerate(logs)]
        _wait(host, ranks)
        is_host_lost = host.poll() is not None
    answers = [_read(folder / f"{rank}.jsonl") for rank in range(SIZE)]
    return Ranks(answers, [_text(log) for log in logs], _text(host_log) if is_host_lost else None)


def _running(log: Path, module: str, *arguments: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"sglang_fl.testing.collectives.{module}", *arguments]
    return running(command, log, clean_environment({}))


def _wait(host: subprocess.Popen[bytes], ranks: list[subprocess.Popen[bytes]]) -> None:
    """Until all ranks have ended, or the host has, without which they come to nothing, or the time is over."""
    deadline = time.monotonic() + _SECONDS
    while host.poll() is None and any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(json.loads(line) for line in lines)
