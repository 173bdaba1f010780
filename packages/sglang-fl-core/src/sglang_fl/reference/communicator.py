"""Collectives by ``torch.distributed`` on the group's own backend: what SGLang falls back on, called directly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from sglang_fl.communication.collectives import Group

_NUMBERS = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int32, torch.int64}
)
"""The dtypes that gloo and the vendors' libraries all add."""

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
"""torch renamed both, and warns of the old names."""

_OFFERED = (
    "all_reduce",
    "all_gather",
    "all_gatherv",
    "reduce_scatter",
    "reduce_scatterv",
    "all_to_all",
    "broadcast",
    "send",
    "recv",
    "isend",
)


class TorchCollectives:
    """The collectives of one group. Uneven ones are made of broadcasts and reductions, which every backend has."""

    dtypes = dict.fromkeys(_OFFERED, _NUMBERS)
    graph_safe = False  # ProcessGroupNCCL can be captured, but keeps work objects that SGLang's graphs do not expect

    def __init__(self, group: Group) -> None:
        self._ranks, self._rank = group.ranks, group.rank
        self._group = group.device_group
        self._batch: list[dist.P2POp] | None = None

    def all_reduce(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - torch's names
        if output is not input:
            output.copy_(input)
        dist.all_reduce(output, group=self._group)

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        _all_gather(output, input, group=self._group)

    def all_gatherv(self, output: torch.Tensor, input: torch.Tensor, sizes: Sequence[int]) -> None:  # noqa: A002
        parts = output.split(list(sizes))
        parts[self._rank].copy_(input)
        self._each(dist.broadcast, parts)

    def reduce_scatter(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        _reduce_scatter(output, input, group=self._group)

    def reduce_scatterv(self, output: torch.Tensor, input: torch.Tensor, sizes: Sequence[int]) -> None:  # noqa: A002
        parts = input.clone().split(list(sizes))  # a backend may use what it reduces as scratch memory
        self._each(dist.reduce, parts)
        output.copy_(parts[self._rank])

    def all_to_all(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        dist.all_to_all_single(output, input, group=self._group)

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        dist.broadcast(tensor, self._ranks[source], group=self._group)

    def send(self, tensor: torch.Tensor, destination: int) -> None:
        if self._batch is None:
            dist.send(tensor, self._ranks[destination], group=self._group)
        else:
            self._batch.append(dist.P2POp(dist.isend, tensor, self._ranks[destination], group=self._group))

    def recv(self, tensor: torch.Tensor, source: int) -> None:
        if self._batch is None:
            dist.recv(tensor, self._ranks[source], group=self._group)
        else:
            self._batch.append(dist.P2POp(dist.irecv, tensor, self._ranks[source], group=self._group))

    def isend(self, tensor: torch.Tensor, destination: int) -> Any:
        return dist.isend(tensor, self._ranks[destination], group=self._group)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Only sends and receptions can wait for each other; what else is called within it is done at once."""
        self._batch = []
        try:
            yield
            batch = self._batch
        finally:
            self._batch = None
        for work in dist.batch_isend_irecv(batch) if batch else ():
            work.wait()

    def destroy(self) -> None:
        """The group is SGLang's, which destroys it."""

    def abort(self) -> None:
        if dist.get_backend(self._group) == "gloo":
            self._break_connections()
        else:
            self._group.abort()

    def _break_connections(self) -> None:
        """gloo's abort releases nobody, but gloo closes its connections when a reception is late, here and there."""
        peer = self._ranks[self._rank - 1]
        try:
            dist.irecv(torch.empty(1), peer, group=self._group, tag=1).wait(timedelta(milliseconds=1))
        except RuntimeError:
            return

    def _each(self, collective: Any, parts: Sequence[torch.Tensor]) -> None:
        """``collective`` of each rank's part, to or from that rank; of what is empty there is nothing to do."""
        started = [
            collective(part, rank, group=self._group, async_op=True)
            for part, rank in zip(parts, self._ranks, strict=True)
            if part.numel()
        ]
        for work in started:
            work.wait()


def create(group: Group) -> TorchCollectives:
    """The collectives of ``group``: it has started already, with SGLang's own."""
    return TorchCollectives(group)
