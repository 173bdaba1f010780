"""A group of two: processes of their own, with a GPU each, and a time limit."""

from __future__ import annotations

import faulthandler
import multiprocessing
import queue
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


@dataclass
class GpuRank:
    """A rank of the group of two, as ``create`` is told of it."""

    rank: int
    gloo: dist.ProcessGroup
    size: int = 2

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.rank)

    def share(self, value: bytes) -> tuple[bytes, ...]:
        values = [b""] * self.size
        dist.all_gather_object(values, value, group=self.gloo)
        return tuple(values)


Work = Callable[[GpuRank, Path], Any]


def in_two_processes(work: Work, library: Path, folder: Path, seconds: float = 60) -> dict[int, Any]:
    """What ``work`` returns in each rank. Raises RuntimeError when one fails, TimeoutError when one does not answer."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[int, Any, str]] = context.Queue()
    arguments = [(rank, work, library, folder / "store", seconds, answers) for rank in range(2)]
    processes = [context.Process(target=_process, args=each, daemon=True) for each in arguments]
    for process in processes:
        process.start()
    limit, told = time.monotonic() + seconds, {}
    try:
        while len(told) < len(processes):
            rank, answer, failure = answers.get(timeout=max(0.0, limit - time.monotonic()))
            if failure:
                raise RuntimeError(f"rank {rank}: {failure}")
            told[rank] = answer
        for process in processes:
            process.join(max(0.1, limit - time.monotonic()))
        if any(process.exitcode != 0 for process in processes):
            raise RuntimeError(f"exit codes: {[process.exitcode for process in processes]}")
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds} s, but of ranks {sorted(told)}") from None
    finally:
        for process in processes:
            process.kill()
    return told


def _process(rank: int, work: Work, library: Path, store: Path, seconds: float, answers: Any) -> None:
    faulthandler.dump_traceback_later(seconds - 5, exit=True)
    torch.cuda.set_device(rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=seconds)
    )
    try:
        answers.put((rank, work(GpuRank(rank, dist.new_group(backend="gloo")), library), ""))
    except Exception:
        answers.put((rank, None, traceback.format_exc()))
        raise
    dist.destroy_process_group()
