"""The collectives of one process group: what a communicator's ``create`` is given, and what it gives back.

A :class:`sglang_fl.records.Communicator` names a ``create(group)``; ``group`` is a :class:`Group`, and what ``create``
returns has the attributes and methods of :class:`Collectives`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sglang_fl.errors import SglangFlError, nearest

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

REDUCING = frozenset({"all_reduce", "reduce_scatter", "reduce_scatterv"})
"""Collectives that add: a dtype that is not declared goes to SGLang."""

MOVING = frozenset({"all_gather", "all_gatherv", "all_to_all", "broadcast", "send", "recv", "isend"})
"""Collectives that only move data: a dtype that is not declared travels as bytes, where ``uint8`` is declared."""

COLLECTIVES = REDUCING | MOVING

_ALWAYS = ("batch", "destroy", "abort")


class CommunicatorError(SglangFlError):
    """The ranks of a group cannot agree on a communicator, or one of them has left a collective."""


@dataclass(frozen=True)
class Group:
    """One process group, as a communicator's ``create`` is given it.

    Attributes:
        name: SGLang's, e.g. ``"tp:0"``.
        rank: this process within the group, from 0.
        ranks: the group's ranks in ``torch.distributed``'s world; two or more.
        device: where the tensors live, with an index where the device has one.
        timeout: seconds that ``create`` may take.
        cpu_group: gloo. Not for collectives in ``create``: another rank may have failed.
        device_group: ``torch.distributed`` on the platform's own backend. Likewise.
        share: ``(bytes) -> every rank's bytes, by rank``: the way to talk to the other ranks in ``create``. It raises
            as soon as another rank has failed, and when one is missing at the time limit. Every rank calls it
            equally often. Do what can fail in this rank alone before the last call.
    """

    name: str
    rank: int
    ranks: tuple[int, ...]
    device: torch.device
    timeout: float
    cpu_group: ProcessGroup
    device_group: ProcessGroup
    share: Callable[[bytes], tuple[bytes, ...]]

    @property
    def size(self) -> int:
        """How many ranks the group has."""
        return len(self.ranks)


class Work(Protocol):
    """A send under way."""

    def wait(self) -> Any:
        """Returns when the tensor may be overwritten by what the current stream does next."""


class Collectives(Protocol):
    """The collectives of one group, by one communicator.

    Every tensor is on the group's device, one-dimensional, contiguous, not empty and of a declared dtype; only a
    rank's own part in an ``all_gatherv`` or ``reduce_scatterv`` may be empty. Counts are elements; ranks are within
    the group. Reductions are sums. A method returns when its work is enqueued on torch's current stream of the device,
    or done, on a CPU; it does not wait for the device, and it raises what goes wrong.

    What core hands over depends on nothing but the collective, the dtype, the device and whether a graph is being
    captured, so that all ranks decide alike.

    Attributes:
        dtypes: collective -> the dtypes that it takes. What is not a key is not offered, and needs no method.
            ``isend`` is what tensor dicts are sent with. The same in every rank; core compares.
        graph_safe: may be captured in a device graph. Where it may not, SGLang's own collectives are.
    """

    dtypes: Mapping[str, frozenset[torch.dtype]]
    graph_safe: bool

    def all_reduce(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - torch's names
        """``output`` may be ``input``."""

    def all_gather(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        """``output`` holds every rank's ``input``, by rank."""

    def all_gatherv(self, output: torch.Tensor, input: torch.Tensor, sizes: Sequence[int]) -> None:  # noqa: A002
        """As ``all_gather``, with ``sizes[rank]`` elements of each rank."""

    def reduce_scatter(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        """``output`` is this rank's part of the summed ``input``."""

    def reduce_scatterv(self, output: torch.Tensor, input: torch.Tensor, sizes: Sequence[int]) -> None:  # noqa: A002
        """As ``reduce_scatter``, with ``sizes[rank]`` elements for each rank."""

    def all_to_all(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        """Part ``i`` of ``input`` goes to rank ``i``; all parts are of one size."""

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        """``tensor`` of rank ``source`` goes to all."""

    def send(self, tensor: torch.Tensor, destination: int) -> None:
        """To be received with ``recv``."""

    def recv(self, tensor: torch.Tensor, source: int) -> None:
        """Fills ``tensor`` with what ``source`` sent."""

    def isend(self, tensor: torch.Tensor, destination: int) -> Work:
        """A send that does not hold up what the current stream does next. To be received with ``recv``."""

    def batch(self) -> AbstractContextManager[Any]:
        """Group start and end: what is called within it is issued together at its end, and lives until then."""

    def destroy(self) -> None:
        """Frees. No call follows. May wait for this rank's own work, and for no other rank."""

    def abort(self) -> None:
        """Ends at once and waits for nobody; what waits in this process returns or raises, where that can be had.

        May come from any thread, and a ``destroy`` may follow.
        """


def misdeclared(made: Any) -> str | None:
    """What is wrong with what a ``create`` returned, or None."""
    dtypes = getattr(made, "dtypes", None)
    if not isinstance(dtypes, Mapping) or not all(isinstance(of, Set) for of in dtypes.values()):
        return f"{type(made).__name__} has no dtypes, a mapping of collectives to sets"
    if not isinstance(getattr(made, "graph_safe", None), bool):
        return f"{type(made).__name__} has no graph_safe, True or False"
    for name in dtypes:
        if name not in COLLECTIVES:
            return f"{type(made).__name__} declares {name!r}, which is no collective; {nearest(name, COLLECTIVES)}"
    for name in (*dtypes, *_ALWAYS):
        if not inspect.isroutine(getattr(made, name, None)):
            return f"{type(made).__name__} has no method {name}"
    for name in dtypes.keys() & {"send", "isend"}:
        if dtypes[name] != dtypes.get("recv"):
            return f"{type(made).__name__} takes other dtypes in {name} than in recv"
    return None


def declaration(made: Collectives) -> str:
    """What ``made`` declares, as a text that is equal where the declarations are."""
    offered = (f"{name}: {', '.join(sorted(map(str, of)))}" for name, of in sorted(made.dtypes.items()))
    return "; ".join((*offered, f"graph_safe: {made.graph_safe}"))
