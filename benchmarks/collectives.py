"""What collectives cost by each communicator that can be had, 1 KB to 256 MB, on the accelerators or CPU of one host.

Every rank is a process; each size is timed by all of them in turns, in one run, so that a machine's drift falls on all.
``torch.distributed`` called directly is among them everywhere; on CUDA so are the NCCL that SGLang calls itself and the
kernels that it has for small sums, and each is timed in a CUDA graph too. GB/s are the bytes of the tensor by the time.
Each result is checked before it is timed.

    python -m benchmarks.collectives [--ranks N] [--collectives all_reduce,...] [--largest BYTES] [--json FILE]
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.figures import Figures, at_least, parser, some_of
from sglang_fl.communication.agreement import agree
from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.exchange import Departure
from sglang_fl.communication.selection import select_communicator
from sglang_fl.communication.served import ServedGroup
from sglang_fl.session import Session
from sglang_fl.testing.processes import free_port

SIZES = [1024 * 4**power for power in range(10)]  # 1 KB to 256 MB
ROUNDS, SECONDS = 7, 0.02
"""Rounds per size, and how long one is to last, as far as a whole number of calls allows."""

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter")

SERVED_ADDS_US = 5.0
"""What the way from a coordinator to its communicator may cost the host."""

GRAPHED = 20
"""Calls in a graph, one after the other, as the layers of a model make them."""

Run = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]
"""``(output, input) -> the result``, None where it is ``output``; of an all_reduce both are one tensor."""


class Side(NamedTuple):
    """One way to run a collective.

    Attributes:
        run: makes a call.
        takes: does it take a tensor of that kind?
        capturing: what a graph must be captured in; None where it cannot be.
    """

    run: Run
    takes: Callable[[torch.Tensor], bool] = lambda tensor: True
    capturing: Callable[[], AbstractContextManager[None]] | None = None


Sides = dict[str, Side]


def main() -> None:
    """Starts the ranks, and prints what the first of them tells."""
    options = parser(__doc__)
    options.add_argument("--ranks", type=at_least(2), default=2)
    options.add_argument("--collectives", type=some_of(*COLLECTIVES), default=["all_reduce"], metavar="C,...")
    options.add_argument("--largest", type=at_least(SIZES[0]), default=SIZES[-1], help="the largest size, in bytes")
    args = options.parse_args()
    figures = Figures(args.json)
    figures.add("collectives.served_adds", served_adds(), "us", at_most=SERVED_ADDS_US)
    for name, value, unit in _ranks(args.ranks, (args.collectives, [size for size in SIZES if size <= args.largest])):
        figures.add(name, value, unit)
    figures.finish()


def served_adds() -> float:
    """Median microseconds that a communicator that does nothing costs more through :class:`ServedGroup`."""
    nothing, one = _Nothing(), torch.ones(8)
    group: Any = Group("none", 0, (0,), torch.device("cpu"), 0, None, None, None)  # type: ignore[arg-type]
    served = ServedGroup(group, "nothing", nothing, nothing)

    def call() -> None:
        if served.refusal("all_reduce", one) is None:
            served.all_reduce(one)

    timers = [timeit.Timer(lambda: nothing.all_reduce(one, one)), timeit.Timer(call)]
    rounds = [[timer.timeit(2000) / 2000 * 1e6 for timer in timers] for _ in range(50)]
    return statistics.median(through - direct for direct, through in rounds)


class _Nothing:
    """A communicator, and a departure, without effects."""

    dtypes = {"all_reduce": frozenset({torch.float32})}  # noqa: RUF012 - as communicators declare it
    graph_safe = True

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None

    def all_reduce(self, output: torch.Tensor, tensor: torch.Tensor) -> None:
        pass


def _ranks(count: int, work: tuple[list[str], list[int]]) -> Iterator[tuple[str, float, str]]:
    """The figures that rank 0 measures, as they come. Ends this process when a rank fails."""
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    address = f"tcp://127.0.0.1:{free_port()}"
    ranks = [context.Process(target=_rank, args=(rank, count, address, work, told)) for rank in range(count)]
    for process in ranks:
        process.start()
    while any(process.is_alive() for process in ranks) or not told.empty():
        if not told.empty():
            yield told.get()
        elif any(process.exitcode for process in ranks):
            break
        else:
            time.sleep(0.05)
    for process in ranks:
        process.join(60)
    if any(process.exitcode for process in ranks):
        sys.exit("a rank has failed; what it says is above")


def _rank(rank: int, count: int, address: str, work: tuple[list[str], list[int]], told: Any) -> None:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = torch.device("cpu") if accelerator is None else torch.device(accelerator.type, rank)
    if device.type != "cpu":
        torch.get_device_module(device).set_device(device)
    backend = dist.Backend.default_device_backend_map[device.type]
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=count)
    group = _group(rank, count, device)
    for collective in work[0]:
        sides = dict(_sides(collective, group))
        for about in work[1]:
            size = about // (4 * count) * 4 * count  # whole numbers of either dtype for each rank
            taking = {name: side for name, side in sides.items() if side.takes(_tensors(collective, group, size)[1])}
            for name, microseconds in _measured(collective, taking, group, size).items():
                if rank == 0:
                    figure = f"collectives.{collective}.{_written(about)}.{name}"
                    told.put((figure, microseconds, "us"))
                    told.put((f"{figure}.rate", size / microseconds / 1e3, "GB/s"))
    dist.barrier(group.cpu_group)
    dist.destroy_process_group()


def _group(rank: int, count: int, device: torch.device) -> Group:
    ranks = tuple(range(count))
    cpu_group, device_group = dist.new_group(ranks, backend="gloo"), dist.group.WORLD
    return Group("tp:0", rank, ranks, device, 120, cpu_group, device_group, lambda value: (value,))


def _sides(collective: str, group: Group) -> Iterator[tuple[str, Side]]:
    can_capture = nullcontext if group.device.type == "cuda" else None
    yield "torch.distributed", Side(_direct(collective, group), capturing=can_capture)
    if group.device.type == "cuda" and collective == "all_reduce":
        yield "nccl", Side(_pynccl(group), capturing=can_capture)
        yield from _small_sums(group)
    session = Session.start(os.environ)
    for offer in session.communicators:
        settings = replace(session.settings, communicator=offer.record.name, strict=True)
        selection = select_communicator(session.communicators, session.platform, settings)
        store = dist.PrefixStore(f"{collective}/{offer.record.name}", group.cpu_group.get_group_store().clone())
        try:
            agreed = agree(group, selection, store)
        except CommunicatorError as error:
            if group.rank == 0:
                print(f"without {offer.record.name}: {error.found}", flush=True)
        else:
            if agreed.collectives is not None:
                departure = Departure(store, group.rank, group.size)
                served = ServedGroup(group, agreed.name, agreed.collectives, departure)
                in_graphs = can_capture if agreed.collectives.graph_safe else None
                yield agreed.name, Side(_served(collective, served), capturing=in_graphs)


def _direct(collective: str, group: Group) -> Run:
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    runs: dict[str, Run] = {
        "all_reduce": lambda output, tensor: dist.all_reduce(output, group=group.device_group),
        "all_gather": lambda output, tensor: gather(output, tensor, group=group.device_group),
        "reduce_scatter": lambda output, tensor: scatter(output, tensor, group=group.device_group),
    }
    return runs[collective]


def _served(collective: str, served: ServedGroup) -> Run:
    runs: dict[str, Run] = {
        "all_reduce": lambda output, tensor: served.all_reduce(output),
        "all_gather": served.all_gather,
        "reduce_scatter": served.reduce_scatter,
    }
    run = runs[collective]

    def asked(output: torch.Tensor, tensor: torch.Tensor) -> None:
        why = served.refusal(collective, tensor)
        if why is not None:
            raise ValueError(why)
        run(output, tensor)

    return asked


def _pynccl(group: Group) -> Run:
    """The NCCL that SGLang calls itself."""
    from sglang.srt.distributed.device_communicators.pynccl import PyNcclCommunicator  # noqa: PLC0415 - takes 15 s

    communicator = PyNcclCommunicator(group=group.cpu_group, device=group.device)
    communicator.disabled = False
    return lambda output, tensor: communicator.all_reduce(output)


def _small_sums(group: Group) -> Iterator[tuple[str, Side]]:
    """SGLang's own all_reduce for what is small, where it can have it here: by default SGLang prefers it to NCCL."""
    from sglang.srt.distributed import init_distributed_environment  # noqa: PLC0415 - takes 15 s
    from sglang.srt.distributed.device_communicators.custom_all_reduce import dispatch_custom_allreduce  # noqa: PLC0415

    init_distributed_environment(group.size, group.rank, local_rank=group.rank)
    own = dispatch_custom_allreduce(group=group.cpu_group, device=group.device)(group.cpu_group, group.device)
    if not own.disabled:
        run: Run = lambda output, tensor: own.custom_all_reduce(output)  # noqa: E731
        yield "sglang_custom", Side(run, own.should_custom_ar, own.capture)


def _measured(collective: str, sides: Sides, group: Group, size: int) -> dict[str, float]:
    """Median microseconds of one call by each side, and of one in a graph. All ranks make the same calls."""
    output, tensor = _tensors(collective, group, size)
    for name, side in sides.items():
        _check(name, side.run, collective, group, size)
    ways: dict[str, tuple[Callable[[], object], int]] = {}
    for name, side in sides.items():
        ways[name] = (lambda run=side.run: run(output, tensor)), 1
        if side.capturing is not None:
            ways[f"{name}.graph"] = _captured(side, output, tensor).replay, GRAPHED
    times = {name: _agreed_times(call, output.device, group) for name, (call, _) in ways.items()}
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (call, held) in ways.items():
            dist.barrier(group.cpu_group)
            rounds[name].append(_seconds(call, output.device, times[name]) / times[name] / held * 1e6)
    return {name: statistics.median(each) for name, each in rounds.items()}


def _captured(side: Side, output: torch.Tensor, tensor: torch.Tensor) -> torch.cuda.CUDAGraph:
    """A graph of :data:`GRAPHED` calls."""
    assert side.capturing is not None
    graph = torch.cuda.CUDAGraph()
    with side.capturing(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(GRAPHED):
            side.run(output, tensor)
    return graph


def _tensors(collective: str, group: Group, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and input; ``size`` bytes is the whole, of which an all_gather's input and a reduce_scatter's output
    are a part."""
    dtype = torch.float32 if group.device.type == "cpu" else torch.bfloat16
    whole = torch.zeros(size // dtype.itemsize, dtype=dtype, device=group.device)
    if collective == "all_reduce":
        return whole, whole
    part = torch.zeros(whole.numel() // group.size, dtype=dtype, device=group.device)
    return (whole, part) if collective == "all_gather" else (part, whole)


def _check(name: str, run: Run, collective: str, group: Group, size: int) -> None:
    output, tensor = _tensors(collective, group, size)
    tensor.fill_(group.rank + 1)
    elsewhere = run(output, tensor)
    result = output if elsewhere is None else elsewhere
    ranks = torch.arange(1, group.size + 1, dtype=output.dtype, device=output.device)
    if collective == "all_gather":
        wanted = ranks.repeat_interleave(output.numel() // group.size)
    else:
        wanted = ranks.sum().expand_as(output)
    if not torch.equal(result, wanted):
        msg = f"{name} gives a wrong {collective} of {size} bytes"
        raise ValueError(msg)


def _agreed_times(call: Callable[[], object], device: torch.device, group: Group) -> int:
    """How often it is called to take :data:`SECONDS`, as rank 0 finds."""
    _seconds(call, device, 2)
    counted = torch.tensor(max(1, int(SECONDS / (_seconds(call, device, 3) / 3))))
    dist.broadcast(counted, 0, group=group.cpu_group)
    return int(counted)


def _seconds(call: Callable[[], object], device: torch.device, times: int) -> float:
    with _finished(device):
        began = time.perf_counter()
        for _ in range(times):
            call()
    return time.perf_counter() - began


@contextmanager
def _finished(device: torch.device) -> Iterator[None]:
    """Before it begins and when it ends, the device has nothing left to do."""
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    yield
    synchronize()


def _written(size: int) -> str:
    return f"{size // 1024}KB" if size < 1024**2 else f"{size // 1024**2}MB"


if __name__ == "__main__":
    main()
