"""Finds the function for an op once, so that later calls cost what the function costs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from sglang_fl.ops import contract_of
from sglang_fl.policy import SelectionPolicy, entered_policy
from sglang_fl.probation import Chain, Function, Key, Link, outside_capture
from sglang_fl.ranking import Candidate, Selection, select

if TYPE_CHECKING:
    from sglang_fl.tracing import Tracer

logger = logging.getLogger(__name__)

Bound = dict[tuple[str, torch.dtype, torch.device], Function]


class Dispatcher:
    """Selects and calls the implementations of one process.

    Args:
        candidates: all that the plugins offer.
        policy: what the settings want. A policy entered by a ``with`` block goes before it.
        tracer: where selections, calls and quarantines are recorded, if anywhere.
    """

    def __init__(self, candidates: Sequence[Candidate], policy: SelectionPolicy, tracer: Tracer | None = None) -> None:
        self._candidates = tuple(candidates)
        self._policy = policy
        self._tracer = tracer
        self._lock = threading.RLock()
        self._selections: dict[tuple[str, SelectionPolicy], Selection] = {}
        self._links: dict[Key, Link] = {}
        self._chains: dict[tuple[str, torch.dtype, torch.device, SelectionPolicy], Chain] = {}
        self._bound: Bound = {}
        self._bound_under: dict[SelectionPolicy, Bound] = {}

    @property
    def quarantined(self) -> tuple[Link, ...]:
        """The implementations that failed, with their reasons."""
        return tuple(link for link in self._links.values() if link.quarantine is not None)

    def select(self, op: str) -> Selection:
        """Every candidate of ``op`` with its verdict. Raises DispatchError for an op that there is not."""
        policy = entered_policy() or self._policy
        selection = self._selections.get((op, policy))
        if selection is None:
            contract_of(op)
            selection = select(op, self._candidates, policy)
            self._selections[op, policy] = selection
            if self._tracer is not None:
                self._tracer.selection(selection.as_dict())
        return selection

    def resolve(self, op: str) -> Function:
        """The best candidate's function, as its author wrote it. Raises DispatchError when nothing may serve."""
        return self.select(op).require()[0].impl.load()

    def call(self, op: str, obj: Any, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
        """Calls ``op`` through the implementation that the policy selects.

        Raises DispatchError when nothing may serve, and what the implementation raises once it is proven.
        """
        policy = entered_policy()
        bound = self._bound if policy is None else self._bound_under.setdefault(policy, {})
        fn = bound.get((op, x.dtype, x.device))
        if fn is not None:
            return fn(obj, x, *args, **kwargs)
        chain = self.chain(op, x)
        result = chain(obj, x, *args, **kwargs)
        bound[op, x.dtype, x.device] = chain.function()
        return result

    def chain(self, op: str, x: torch.Tensor) -> Chain:
        """The implementations that may serve ``op`` for x's dtype and device, as one function."""
        policy = entered_policy() or self._policy
        key = (op, x.dtype, x.device, policy)
        with self._lock:
            if key not in self._chains:
                ranked = self.select(op).require()
                links = [self._link(candidate, x) for candidate in ranked]
                self._chains[key] = Chain(contract_of(op), links, strict=policy.strict, report=self._report)
            return self._chains[key]

    def _link(self, candidate: Candidate, x: torch.Tensor) -> Link:
        impl = candidate.impl
        key = Key(impl.op, impl.impl_id, x.dtype, x.device)
        if key not in self._links:
            self._links[key] = self._load(candidate, key)
        return self._links[key]

    def _load(self, candidate: Candidate, key: Key) -> Link:
        impl = candidate.impl
        try:
            fn, accepts = impl.load(), impl.load_accepts()
        except Exception as error:
            link = Link(candidate, key, _unloadable, None, quarantine=f"cannot be loaded: {error!r}")
            self._report(link)
            return link
        if self._tracer is not None:
            fn = self._tracer.recorded(impl.op, impl.impl_id, fn)
        return Link(candidate, key, fn, accepts if impl.graph_safe else outside_capture(accepts))

    def _report(self, link: Link) -> None:
        key = link.key
        logger.warning(
            "%s: %s of %s is quarantined for %s on %s: %s",
            *(key.op, key.impl_id, link.candidate.distribution, key.dtype, key.device, link.quarantine),
        )
        if self._tracer is not None:
            self._tracer.event(
                "quarantine",
                op=key.op,
                implementation=key.impl_id,
                dtype=str(key.dtype),
                device=str(key.device),
                reason=link.quarantine,
            )


def _unloadable(*args: Any, **kwargs: Any) -> Any:
    msg = "a quarantined implementation was called"
    raise AssertionError(msg)
