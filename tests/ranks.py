"""Ranks of a job as real processes, for tests of what they do together and of what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch.distributed

from sglang_fl.testing.processes import free_port

HANGS = timedelta(seconds=90)
"""How long gloo waits where nobody tells it otherwise: longer than any test may take."""


@dataclass(frozen=True)
class Ended:
    """How one rank ended: what its function returned, its exit status, and all that it printed."""

    answer: Any
    status: int | None
    log: str


def run_ranks(
    function: Callable[..., Any], size: int, folder: Path, *arguments: Any, within: float = 60, preload: str = "torch"
) -> list[Ended]:
    """Runs ``function(rank, *arguments)`` in ``size`` processes with ``torch.distributed`` on gloo between them.

    An exception ends its process as it would end any: with a traceback, and status 1. A process that has not ended in
    time is killed, and its status is that of SIGKILL.

    Args:
        function: of a module that the processes can import.
        size: how many ranks.
        folder: where to keep logs and answers; of this call alone.
        arguments: pickled.
        within: seconds from the start of the function in the first rank.
        preload: a module that takes long to import: one process does it for all that are forked from it.
    """
    context = _context(preload)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ranks = [
        context.Process(target=_run, args=(rank, size, port, folder, function, arguments), name=f"rank {rank}")
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    _await_start(folder, size)
    deadline = time.monotonic() + within
    for process in ranks:
        process.join(max(0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [_ended(folder, rank, process.exitcode) for rank, process in enumerate(ranks)]


_PRELOADED: list[str] = []
"""What the server has imported from which this process's ranks are forked."""


def _context(preload: str) -> Any:
    """Has ``preload`` imported where ranks are forked: a server that lacks it is replaced by one that has all."""
    context = multiprocessing.get_context("forkserver")
    if preload not in _PRELOADED:
        _PRELOADED.append(preload)
        forkserver._forkserver._stop()  # type: ignore[attr-defined] # CPython's own tests do so
        context.set_forkserver_preload([*_PRELOADED, __name__])
    return context


def die() -> None:
    """Ends this process as a crash does: at once, and without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def _run(rank: int, size: int, port: int, folder: Path, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    with (folder / f"{rank}.log").open("wb", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size, timeout=HANGS)
        (folder / f"{rank}.started").touch()
        answer = function(rank, *arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise SystemExit(1) from None
    (folder / f"{rank}.answer").write_bytes(pickle.dumps(answer))


def _await_start(folder: Path, size: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        logs = [folder / f"{rank}.log" for rank in range(size)]
        started = [(folder / f"{rank}.started").exists() for rank in range(size)]
        failed = [log for log in logs if log.exists() and "Traceback" in log.read_text(errors="replace")]
        if all(started) or failed:
            return
        time.sleep(0.05)


def _ended(folder: Path, rank: int, status: int | None) -> Ended:
    answer = None
    with suppress(FileNotFoundError):
        answer = pickle.loads((folder / f"{rank}.answer").read_bytes())
    return Ended(answer, status, (folder / f"{rank}.log").read_text(errors="replace"))
