"""One group's collectives through the communicator that its ranks agreed on: for any tensor, and never out of step."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from sglang_fl.communication.collectives import MOVING, Collectives, CommunicatorError, Group, Work
from sglang_fl.communication.exchange import Departure
from sglang_fl.probation import is_capturing
from sglang_fl.tracing import Refusal, Tracer

logger = logging.getLogger(__name__)


class ServedGroup:
    """A communicator's collectives for tensors of any shape, layout and size; the counts are the caller's to check.

    Ask :attr:`refusal` before each call. It goes by nothing but what is the same in every rank, so that all ask alike.

    Args:
        group: the group.
        name: the communicator's.
        collectives: this rank's end of it.
        departure: tells the other ranks when this one leaves, and hears it of them.
        elsewhere: why a call is SGLang's, although the communicator takes it, or None. It is asked first.
        tracer: counts what is served here and what is not, and why. None costs nothing.

    Attributes:
        refusal: ``(collective, tensor) -> why SGLang's own path takes it``, or None when it is served here. It raises
            CommunicatorError, as every collective does, once a rank has left the group.
    """

    refusal: Refusal

    def __init__(
        self,
        group: Group,
        name: str,
        collectives: Collectives,
        departure: Departure,
        *,
        elsewhere: Refusal | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.group, self.name = group, name
        self._collectives, self._departure = collectives, departure
        self._refusals: dict[tuple[str, torch.dtype, str], str | None] = {}
        self._held: list[torch.Tensor] | None = None
        self._leaving = threading.Lock()
        self._left: str | None = None
        decide: Refusal = self._refusal if collectives.graph_safe else self._refusal_outside_graphs
        if elsewhere is not None:
            decide = _first(elsewhere, decide)
        self.refusal = decide if tracer is None else tracer.collectives(group.name, name, decide)
        # At exit the newest go first: that order is the same in every rank.
        self._close = weakref.finalize(self, departure.close)
        self._destroy = weakref.finalize(self, collectives.destroy)
        departure.listen(weakref.WeakMethod(self._leave))

    def destroy(self) -> None:
        """Frees the communicator, once. What nobody has destroyed is destroyed when it is forgotten, or at exit."""
        self._destroy()
        self._close()

    # --- collectives -----------------------------------------------------------------------------------------

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Sums ``tensor`` over the ranks, in place."""
        flat = self._flat("all_reduce", tensor)
        self._call("all_reduce", flat, flat, flat)
        _write_back(flat, tensor)

    def all_gather(self, output: torch.Tensor, tensor: torch.Tensor) -> None:
        """``output`` becomes every rank's ``tensor``, by rank."""
        flat = self._flat("all_gather", output)
        self._call("all_gather", flat, flat, self._flat("all_gather", tensor))
        _write_back(flat, output)

    def all_gatherv(self, output: torch.Tensor, tensor: torch.Tensor, sizes: Sequence[int]) -> None:
        """The same with ``sizes[rank]`` elements of each rank."""
        flat, part = self._flat("all_gatherv", output), self._flat("all_gatherv", tensor)
        scale = tensor.element_size() // part.element_size()
        self._call("all_gatherv", flat, flat, part, [size * scale for size in sizes])
        _write_back(flat, output)

    def reduce_scatter(self, output: torch.Tensor, tensor: torch.Tensor) -> None:
        """``output`` becomes this rank's part of the sum of ``tensor``."""
        flat, whole = self._flat("reduce_scatter", output), self._flat("reduce_scatter", tensor)
        self._call("reduce_scatter", whole, flat, whole)
        _write_back(flat, output)

    def reduce_scatterv(self, output: torch.Tensor, tensor: torch.Tensor, sizes: Sequence[int]) -> None:
        """The same with ``sizes[rank]`` elements for each rank."""
        flat, whole = self._flat("reduce_scatterv", output), self._flat("reduce_scatterv", tensor)
        self._call("reduce_scatterv", whole, flat, whole, list(sizes))
        _write_back(flat, output)

    def all_to_all(self, output: torch.Tensor, tensor: torch.Tensor) -> None:
        """Part ``i`` of ``tensor`` goes to rank ``i``."""
        flat = self._flat("all_to_all", output)
        self._call("all_to_all", flat, flat, self._flat("all_to_all", tensor))
        _write_back(flat, output)

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        """``tensor`` becomes that of rank ``source``."""
        flat = self._flat("broadcast", tensor)
        self._call("broadcast", flat, flat, source)
        _write_back(flat, tensor)

    def send(self, tensor: torch.Tensor, destination: int) -> None:
        """Sends to a rank of the group."""
        flat = self._flat("send", tensor)
        self._call("send", flat, flat, destination)

    def recv(self, tensor: torch.Tensor, source: int) -> None:
        """Receives from a rank of the group."""
        flat = self._flat("recv", tensor)
        self._call("recv", flat, flat, source)
        _write_back(flat, tensor)

    def isend(self, tensor: torch.Tensor, destination: int) -> tuple[Work, torch.Tensor]:
        """A send of something, under way, and the tensor to keep until it is done."""
        flat = self._flat("isend", tensor)
        return self._call("isend", flat, flat, destination), flat

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Issues together what is called within it. Outputs must be contiguous."""
        self._held = []
        try:
            with self._collectives.batch():
                yield
        except BaseException as error:
            self._fail("batch", error)
        finally:
            self._held = None

    # --- what is decided before a call -----------------------------------------------------------------------

    def _refusal(self, collective: str, tensor: torch.Tensor) -> str | None:
        key = (collective, tensor.dtype, tensor.device.type)
        if key not in self._refusals:
            self._refusals[key] = self._decide(*key)
        return self._refusals[key]

    def _refusal_outside_graphs(self, collective: str, tensor: torch.Tensor) -> str | None:
        if is_capturing(tensor.device):
            return f"{self.name} cannot be captured in a graph"
        return self._refusal(collective, tensor)

    def _decide(self, collective: str, dtype: torch.dtype, device_type: str) -> str | None:
        offered = self._collectives.dtypes.get(collective)
        if offered is None:
            return f"{self.name} does not offer {collective}"
        if device_type != self.group.device.type:
            return f"the tensor is on {device_type}, the group on {self.group.device.type}"
        if dtype in offered or (collective in MOVING and torch.uint8 in offered):
            return None
        return f"{self.name} has no {collective} of {str(dtype).removeprefix('torch.')}"

    # --- one call --------------------------------------------------------------------------------------------

    def _flat(self, collective: str, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` as a communicator takes it: the same memory where that is contiguous, a copy where not."""
        flat = tensor.contiguous().view(-1)
        if flat.dtype not in self._collectives.dtypes[collective]:
            flat = flat.view(torch.uint8)
        if self._held is not None:
            self._held.append(flat)  # a batch reads it only at its end
        return flat

    def _call(self, collective: str, whole: torch.Tensor, *arguments: Any) -> Any:
        if self._left is not None:
            raise self._error(collective)
        if whole.numel() == 0:
            return None
        try:
            return getattr(self._collectives, collective)(*arguments)
        except BaseException as error:
            self._fail(collective, error)

    # --- leaving ---------------------------------------------------------------------------------------------

    def _fail(self, collective: str, error: BaseException) -> NoReturn:
        """Leaves the group: what the others do next is unknown, and no collective of theirs would end."""
        own = f"rank {self.group.rank} left it in {collective} ({type(error).__name__}: {error})"
        first = self._departure.tell(own)  # another rank may have left before, and this is what comes of it
        self._leave(first if first == own else f"{first}; then {own}")
        if not isinstance(error, Exception):
            raise error
        raise self._error(collective) from error

    def _leave(self, reason: str) -> None:
        with self._leaving:
            if self._left is not None:
                return
            self._left = reason
        logger.error("group %s can no longer be used: %s", self.group.name, reason)
        self.refusal = self._refuse
        self._destroy.detach()
        try:
            self._collectives.abort()
        except Exception:
            logger.exception("communicator %s of group %s could not be ended", self.name, self.group.name)

    def _refuse(self, collective: str, tensor: torch.Tensor) -> NoReturn:
        raise self._error(collective)

    def _error(self, collective: str) -> CommunicatorError:
        return CommunicatorError(
            f"group {self.group.name}, rank {self.group.rank}",
            asked=f"{collective} by communicator {self.name!r}",
            found=f"the ranks are out of step: {self._left}",
            do="restart the server; SGLANG_FL_DIST_BACKEND chooses another communicator",
        )


def _first(one: Refusal, other: Refusal) -> Refusal:
    return lambda collective, tensor: one(collective, tensor) or other(collective, tensor)


def _write_back(flat: torch.Tensor, tensor: torch.Tensor) -> None:
    if not tensor.is_contiguous():
        tensor.copy_(flat.view(tensor.dtype).view(tensor.shape))
