"""FlagCX's collectives for one process group, as ``sglang_fl``'s communicators offer them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate
from typing import Any, Protocol

import torch

from sglang_fl_flagcx import abi
from sglang_fl_flagcx.abi import DataType, ReduceOp, Result
from sglang_fl_flagcx.ending import PATIENCE, Ending
from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.library import Library
from sglang_fl_flagcx.options import Options
from sglang_fl_flagcx.streams import Streams, native_stream

DTYPES: Mapping[torch.dtype, DataType] = {getattr(torch, dtype.name): dtype for dtype in DataType}
"""Every dtype that FlagCX has."""

COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gatherv",
    "reduce_scatter",
    "reduce_scatterv",
    "all_to_all",
    "broadcast",
    "send",
    "recv",
)
"""What is offered. Not ``isend``: a communicator's work runs in order, on whichever stream, so that a send that its
receiver does not take yet holds back all that follows."""


class Group(Protocol):
    """What :func:`create` needs to know of a process group."""

    @property
    def rank(self) -> int:
        """This process's rank within the group."""

    @property
    def size(self) -> int:
        """How many ranks it has."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are, with index."""

    @property
    def share(self) -> Callable[[bytes], tuple[bytes, ...]]:
        """Every rank's value, by rank."""


def create(options: Options, group: Group) -> FlagCX:
    """FlagCX for ``group``. Raises FlagCXError where the library cannot be used, or refuses."""
    os.environ.update(options.modes)  # FlagCX reads them nowhere else
    library = Library.load(options.path)
    with ExitStack() as undo:
        streams = Streams(library, native_stream(group.device))
        undo.callback(streams.free)
        comm = _start(library, group)
        undo.callback(library.call, "flagcxCommAbort", comm)
        can_capture = group.device.type == "cuda" and not options.modes and library.is_homogeneous(comm)
        undo.pop_all()
    return FlagCX(library, comm, streams, group, graph_safe=can_capture)


def _start(library: Library, group: Group) -> int:
    made = library.unique_id() if group.rank == 0 else b""
    unique_id = group.share(made)[0]
    return library.start(group.size, unique_id, group.rank)


class FlagCX:
    """One process group's collectives, enqueued on torch's current stream.

    Tensors are contiguous, on the group's device, and of a dtype in :data:`DTYPES`; counts are elements, ranks are
    ranks in the group. Everything raises FlagCXError, with FlagCX's words, where FlagCX refuses.

    Attributes:
        dtypes: of each collective, the dtypes that it takes.
        graph_safe: may be captured in a device graph: on CUDA, where all devices are of one vendor.
    """

    def __init__(
        self,
        library: Library,
        comm: int,
        streams: Streams,
        group: Group,
        *,
        graph_safe: bool,
        patience: float = PATIENCE,
    ) -> None:
        self.dtypes = dict.fromkeys(COLLECTIVES, frozenset(DTYPES))
        self.graph_safe = graph_safe
        self._library, self._functions, self._streams = library, library.functions, streams
        self._rank, self._size = group.rank, group.size
        self._comm: int | None = comm
        self._batches = 0
        self._ending = Ending(library, comm, streams, group.device.index or 0, patience)

    def all_reduce(self, output: torch.Tensor, input: torch.Tensor, op: ReduceOp = ReduceOp.SUM) -> None:  # noqa: A002
        """Reduces ``input`` over all ranks into each rank's ``output``, which may be ``input``."""
        self._enqueue("flagcxAllReduce", input.data_ptr(), output.data_ptr(), input.numel(), _code(input), op)

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        """Every rank's ``input``, by rank, in ``output``; ``input`` may be this rank's part of it."""
        self._enqueue("flagcxAllGather", input.data_ptr(), output.data_ptr(), input.numel(), _code(input))

    def all_gatherv(self, output: torch.Tensor, input: torch.Tensor, sizes: Sequence[int]) -> None:  # noqa: A002
        """The same with ``sizes[rank]`` elements from each rank."""
        every, nowhere = abi.sizes([input.numel()] * self._size), abi.sizes([0] * self._size)
        places = abi.sizes(_starts(sizes))
        pointers = input.data_ptr(), every, nowhere, output.data_ptr(), abi.sizes(sizes), places
        self._enqueue("flagcxAlltoAllv", *pointers, _code(input))

    def reduce_scatter(self, output: torch.Tensor, input: torch.Tensor, op: ReduceOp = ReduceOp.SUM) -> None:  # noqa: A002
        """Part ``rank`` of the reduction of ``input`` over all ranks; ``output`` may be that part of ``input``."""
        self._enqueue("flagcxReduceScatter", input.data_ptr(), output.data_ptr(), output.numel(), _code(input), op)

    def reduce_scatterv(
        self,
        output: torch.Tensor,
        input: torch.Tensor,  # noqa: A002
        sizes: Sequence[int],
        op: ReduceOp = ReduceOp.SUM,
    ) -> None:
        """The same with a part of ``sizes[rank]`` elements for each rank."""
        with self.batch():
            for root, (start, count) in enumerate(zip(_starts(sizes), sizes, strict=True)):
                if count:
                    sent = input.data_ptr() + start * input.element_size()
                    received = output.data_ptr() if root == self._rank else None
                    self._enqueue("flagcxReduce", sent, received, count, _code(input), op, root)

    def all_to_all(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        """Part i of ``input`` to rank i; part i of ``output`` from rank i; all parts equal."""
        count = input.numel() // self._size
        self._enqueue("flagcxAlltoAll", input.data_ptr(), output.data_ptr(), count, _code(input))

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        """Rank ``source``'s ``tensor`` in every rank's."""
        pointer = tensor.data_ptr()
        self._enqueue("flagcxBroadcast", pointer, pointer, tensor.numel(), _code(tensor), source)

    def send(self, tensor: torch.Tensor, destination: int) -> None:
        """Sends ``tensor`` to rank ``destination``."""
        self._enqueue("flagcxSend", tensor.data_ptr(), tensor.numel(), _code(tensor), destination)

    def recv(self, tensor: torch.Tensor, source: int) -> None:
        """Receives ``tensor`` from rank ``source``."""
        self._enqueue("flagcxRecv", tensor.data_ptr(), tensor.numel(), _code(tensor), source)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Issues the calls within it together, at its end."""
        comm = self._alive()
        self._check("flagcxGroupStart", comm)
        self._batches += 1
        try:
            yield
        except BaseException:
            with suppress(FlagCXError):  # the first failure is the one to tell of
                self._end_batch(comm)
            raise
        self._end_batch(comm)

    def destroy(self) -> None:
        """Frees everything, in seconds at most. No call may follow."""
        self._comm = None
        self._ending.destroy()

    def abort(self) -> None:
        """Ends everything that is under way, at once; what is being batched, at the end of the batch."""
        self._comm = None
        if self._batches == 0:
            self._ending.abort()

    def _end_batch(self, comm: int) -> None:
        self._batches -= 1
        try:
            self._check("flagcxGroupEnd", comm)
        finally:
            if self._comm is None:  # aborted meanwhile, and FlagCX's group had to be ended first
                self._ending.abort()

    def _enqueue(self, name: str, *arguments: Any) -> None:
        self._check(name, *arguments, self._alive(), self._streams.current())

    def _check(self, name: str, *arguments: Any) -> None:
        result = self._functions[name](*arguments)
        if result != Result.flagcxSuccess:
            raise self._library.failure(name, result, self._comm)

    def _alive(self) -> int:
        if self._comm is None:
            raise FlagCXError("FlagCX", asked="a collective", found="that it has been ended", do="make it before")
        return self._comm


def _code(tensor: torch.Tensor) -> DataType:
    code = DTYPES.get(tensor.dtype)
    if code is None:
        raise FlagCXError(
            "FlagCX",
            asked=f"a collective of {tensor.dtype}",
            found=f"it has {', '.join(dtype.name for dtype in DataType)}",
            do="move other dtypes as bytes (torch.uint8), and reduce them elsewhere",
        )
    return code


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][: len(sizes)]
