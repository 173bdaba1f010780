"""FlagCX's collectives beside NCCL's, through torch.distributed, on two GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from sglang_fl_flagcx.abi import ReduceOp
from sglang_fl_flagcx.communicator import DTYPES, FlagCX, create
from sglang_fl_flagcx.options import Options
from tests.flagcx.gpu_processes import GpuRank

COUNTS = (1, 9001)
UNEVEN = (3, 5000)
_SIGNED = {torch.uint32: torch.int32, torch.uint64: torch.int64}  # torch.distributed has no unsigned ones of these

Problems = dict[str, str]
"""What was compared -> how it differs."""


def numbers(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """A rank's own numbers, on its GPU."""
    generator = torch.Generator().manual_seed(rank)
    drawn = torch.randn(count, generator=generator) * 20
    return drawn.to(dtype).to("cuda") if dtype.is_floating_point else drawn.abs().to(torch.int64).to(dtype).to("cuda")


def signed(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits as torch.distributed takes them: a sum of two's complements has them too."""
    return tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype))


Pair = tuple[torch.Tensor, torch.Tensor]


def all_reduce(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, count, dtype)
    ours, theirs = torch.empty_like(mine), mine.clone()
    flagcx.all_reduce(ours, mine)
    dist.all_reduce(signed(theirs))
    return ours, theirs


def all_reduce_in_place(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    ours = numbers(rank, count, dtype)
    theirs = ours.clone()
    flagcx.all_reduce(ours, ours)
    dist.all_reduce(signed(theirs))
    return ours, theirs


def all_gather(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, count, dtype)
    ours, theirs = mine.new_empty(2 * count), mine.new_empty(2 * count)
    flagcx.all_gather(ours, mine)
    dist.all_gather_into_tensor(signed(theirs), signed(mine))
    return ours, theirs


def all_gatherv(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, UNEVEN[rank], dtype)
    ours, theirs = mine.new_empty(sum(UNEVEN)), mine.new_empty(sum(UNEVEN))
    flagcx.all_gatherv(ours, mine, UNEVEN)
    dist.all_gather(list(signed(theirs).split(UNEVEN)), signed(mine))
    return ours, theirs


def reduce_scatter(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, 2 * count, dtype)
    ours, theirs = mine.new_empty(count), mine.new_empty(count)
    flagcx.reduce_scatter(ours, mine)
    dist.reduce_scatter_tensor(signed(theirs), signed(mine))
    return ours, theirs


def reduce_scatterv(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, sum(UNEVEN), dtype)
    ours, theirs = mine.new_empty(UNEVEN[rank]), mine.new_empty(UNEVEN[rank])
    flagcx.reduce_scatterv(ours, mine, UNEVEN)
    dist.reduce_scatter(signed(theirs), list(signed(mine).split(UNEVEN)))
    return ours, theirs


def all_to_all(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, 2 * count, dtype)
    ours, theirs = torch.empty_like(mine), torch.empty_like(mine)
    flagcx.all_to_all(ours, mine)
    dist.all_to_all_single(signed(theirs), signed(mine))
    return ours, theirs


def broadcast(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    ours = numbers(rank, count, dtype)
    theirs = ours.clone()
    flagcx.broadcast(ours, 1)
    dist.broadcast(signed(theirs), 1)
    return ours, theirs


def send_and_recv(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    ours = numbers(rank, count, dtype)
    theirs = ours.clone()
    if rank == 0:
        flagcx.send(ours, 1)
        dist.send(signed(theirs), 1)
    else:
        flagcx.recv(ours, 0)
        dist.recv(signed(theirs), 0)
    return ours, theirs


def batch(flagcx: FlagCX, rank: int, count: int, dtype: torch.dtype) -> Pair:
    mine = numbers(rank, count, dtype)
    ours, theirs = torch.empty_like(mine), torch.empty_like(mine)
    with flagcx.batch():
        flagcx.send(mine, 1 - rank)
        flagcx.recv(ours, 1 - rank)
    sent, received = signed(mine), signed(theirs)
    works = dist.batch_isend_irecv([dist.P2POp(dist.isend, sent, 1 - rank), dist.P2POp(dist.irecv, received, 1 - rank)])
    for work in works:
        work.wait()
    return ours, theirs


COLLECTIVES: Mapping[str, Callable[[FlagCX, int, int, torch.dtype], Pair]] = {
    function.__name__: function
    for function in (
        *(all_reduce, all_reduce_in_place, all_gather, all_gatherv, reduce_scatter, reduce_scatterv),
        *(all_to_all, broadcast, send_and_recv, batch),
    )
}
REDUCTIONS = {
    ReduceOp.PRODUCT: dist.ReduceOp.PRODUCT,
    ReduceOp.MAX: dist.ReduceOp.MAX,
    ReduceOp.MIN: dist.ReduceOp.MIN,
    ReduceOp.AVERAGE: dist.ReduceOp.AVG,
}


def compare(rank: GpuRank, library: Path) -> Problems:
    """What of FlagCX's differs from NCCL's by a bit, and how."""
    flagcx = create(Options(library, {}, None), rank)
    problems: Problems = {}
    for name, collective in COLLECTIVES.items():
        for dtype in DTYPES:
            for count in COUNTS:
                note(problems, f"{name} {dtype} {count}", *collective(flagcx, rank.rank, count, dtype))
    for op, nccl_op in REDUCTIONS.items():
        ours = numbers(rank.rank, 9001, torch.float32)
        theirs = ours.clone()
        flagcx.all_reduce(ours, ours, op)
        dist.all_reduce(theirs, nccl_op)
        note(problems, f"all_reduce {op.name}", ours, theirs)
    note(problems, "a stream of its own", *_on_a_stream_of_its_own(flagcx, rank.rank))
    torch.cuda.synchronize()
    flagcx.destroy()
    return problems


def _on_a_stream_of_its_own(flagcx: FlagCX, rank: int) -> Pair:
    """What is enqueued before a collective on the same stream is done before it."""
    ours, expected = torch.zeros(9001, device="cuda"), torch.full((9001,), 3.0, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        ours.fill_(1.0 + rank)
        flagcx.all_reduce(ours, ours)
    return ours, expected


def note(problems: Problems, name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Adds to ``problems`` what differs."""
    torch.cuda.synchronize()
    if not torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)):
        differ = int((signed(ours) != signed(theirs)).sum())
        problems[name] = f"{differ} of {ours.numel()} differ: {ours[:3].tolist()}..., NCCL: {theirs[:3].tolist()}..."
