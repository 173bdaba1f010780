"""FlagCX in CUDA graphs, and how long its ends take, on two GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from sglang_fl_flagcx.communicator import FlagCX, create
from sglang_fl_flagcx.ending import PATIENCE
from sglang_fl_flagcx.options import Options
from tests.flagcx.beside_nccl import Problems, note, numbers
from tests.flagcx.gpu_processes import GpuRank


def replay(rank: GpuRank, library: Path) -> Problems:
    """What a captured all_reduce gets wrong when it is replayed on other numbers."""
    flagcx = create(Options(library, {}, None), rank)
    problems: Problems = {} if flagcx.graph_safe else {"graph_safe": "False"}
    graph, mine, ours = captured(flagcx)
    for seed in range(3):
        mine.copy_(numbers(2 * seed + rank.rank, mine.numel(), mine.dtype))
        theirs = mine.clone()
        graph.replay()
        dist.all_reduce(theirs)
        note(problems, f"replay {seed}", ours, theirs)
    graph.reset()
    flagcx.destroy()
    return problems


def captured(flagcx: FlagCX) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
    """A graph of one all_reduce, its input and its output."""
    mine = torch.zeros(9001, dtype=torch.bfloat16, device="cuda")
    ours = torch.empty_like(mine)
    flagcx.all_reduce(ours, mine)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        flagcx.all_reduce(ours, mine)
    return graph, mine, ours


def end(rank: GpuRank, library: Path) -> dict[str, float]:
    """Seconds that the end takes: after work, while a graph lives, and when the other rank never comes."""
    took: dict[str, float] = {}
    options = Options(library, {}, None)

    flagcx, graphed, missed = (create(options, rank) for _ in range(3))
    tensor = torch.ones(9001, device="cuda")
    flagcx.all_reduce(tensor, tensor)
    if rank.rank == 1:
        time.sleep(1)  # the other one is not waited for
    took["destroy"] = _seconds(flagcx.destroy)

    graph, *_tensors = captured(graphed)
    took["destroy with a live graph"] = _seconds(graphed.destroy)

    missed.all_reduce(tensor, tensor)
    torch.cuda.synchronize()
    if rank.rank == 0:
        missed.all_reduce(tensor, tensor)
        took["abort"] = _seconds(missed.abort)
        took["what was aborted returns"] = _seconds(torch.cuda.synchronize)
    else:
        time.sleep(PATIENCE)
        missed.abort()
    dist.barrier(group=rank.gloo)
    graph.reset()
    return took


def _seconds(function: Callable[[], None]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start
