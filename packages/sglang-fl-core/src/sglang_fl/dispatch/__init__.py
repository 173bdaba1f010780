"""Finds the function for an op once, so that later calls cost what the function costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from sglang_fl.errors import DispatchError
from sglang_fl.opaque import opaque
from sglang_fl.ops import contract_of
from sglang_fl.policy import SelectionPolicy, entered_policy
from sglang_fl.probation import Accepts, Chain, Function, Key, Link, is_capturing
from sglang_fl.ranking import Candidate, Selection, select
from sglang_fl.records import OpImpl, refusal

if TYPE_CHECKING:
    from sglang_fl.tracing import Tracer

logger = logging.getLogger(__name__)

Bound = dict[tuple[str, torch.dtype, torch.device], Function]


class Dispatcher:
    """Selects and calls the implementations of one process.

    Threads share it without a lock: what two of them make at once is made equal, and ``setdefault`` keeps one. A
    child that is forked meanwhile finds nothing locked.

    Args:
        candidates: all that the plugins offer.
        policy: what the settings want. A policy entered by a ``with`` block goes before it.
        tracer: where selections, calls and quarantines are recorded, if anywhere.
    """

    def __init__(self, candidates: Sequence[Candidate], policy: SelectionPolicy, tracer: Tracer | None = None) -> None:
        self._candidates = tuple(candidates)
        self._policy = policy
        self._tracer = tracer
        self._selections: dict[tuple[str, SelectionPolicy], Selection] = {}
        self._functions: dict[tuple[str, str], Function] = {}
        self._links: dict[Key, Link] = {}
        self._chains: dict[tuple[str, torch.dtype, torch.device, SelectionPolicy], Chain] = {}
        self._bound: Bound = {}
        self._bound_under: dict[SelectionPolicy, Bound] = {}

    @property
    def policy(self) -> SelectionPolicy:
        """What the settings want."""
        return self._policy

    @property
    def quarantined(self) -> tuple[Link, ...]:
        """The implementations that failed, with their reasons."""
        return tuple(link for link in tuple(self._links.values()) if link.quarantine is not None)

    def select(self, op: str) -> Selection:
        """Every candidate of ``op`` with its verdict. Raises DispatchError for an op that there is not."""
        policy = entered_policy() or self._policy
        selection = self._selections.get((op, policy))
        if selection is None:
            contract_of(op)
            made = select(op, self._candidates, policy)
            selection = self._selections.setdefault((op, policy), made)
            if self._tracer is not None and selection is made:
                self._tracer.selection(selection.as_dict())
        return selection

    def resolve(self, op: str) -> Function:
        """The best candidate's function, as its author wrote it.

        Raises DispatchError when nothing may serve, or when the best candidate's function cannot be imported.
        """
        best = self.select(op).require()[0]
        try:
            return best.impl.load()
        except (Exception, SystemExit) as error:
            raise DispatchError(
                f"implementation {best.impl.impl_id!r} of {best.distribution}",
                asked=f"the function {best.impl.fn!r} of {op}",
                found=f"{type(error).__name__}: {error}",
                do=f"mend {best.distribution}, or prefer another implementation",
            ) from error

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
        if x.numel() and not is_capturing(x.device):  # otherwise nothing has proven itself
            bound[op, x.dtype, x.device] = chain.function()
        return result

    def chain(self, op: str, x: torch.Tensor) -> Chain:
        """The implementations that may serve ``op`` for x's dtype and device, as one function."""
        policy = entered_policy() or self._policy
        key = (op, x.dtype, x.device, policy)
        chain = self._chains.get(key)
        if chain is None:
            links = [self._link(candidate, x) for candidate in self.select(op).require()]
            made = Chain(contract_of(op), links, strict=policy.strict, report=self._report)
            chain = self._chains.setdefault(key, made)
        return chain

    def for_compiler(self, op: str) -> Function | None:
        """What compiled code may call before anything has proven itself: Dynamo can trace it, but no probation.

        None when nothing serves every call in a graph. What cannot be imported is passed over: it is quarantined, with
        its reason, at its first eager call.
        """
        policy = entered_policy() or self._policy
        ranked = self.select(op).require()
        ways: list[tuple[Accepts | None, Function]] = []
        for candidate in ranked[:1] if policy.strict else ranked:
            impl = candidate.impl
            if impl.graph_safe and not self._has_failed(impl):
                try:
                    ways.append((impl.load_accepts(), self._loaded(impl)))
                except (Exception, SystemExit):
                    continue
                if impl.accepts is None:
                    return _first_accepting(ways)
        return None

    def _has_failed(self, impl: OpImpl) -> bool:
        return any((link.key.op, link.key.impl_id) == (impl.op, impl.impl_id) for link in self.quarantined)

    def _link(self, candidate: Candidate, x: torch.Tensor) -> Link:
        key = Key(candidate.impl.op, candidate.impl.impl_id, x.dtype, x.device)
        return self._links.setdefault(key, Link(candidate, key, self._loaded))

    def _loaded(self, impl: OpImpl) -> Function:
        """The record's function as it is to be called, made once: the custom ops of an opaque one have one name."""
        key = (impl.op, impl.impl_id)
        fn = self._functions.get(key)
        if fn is None:
            fn = impl.load() if impl.traceable else opaque(*key, impl.load())
            fn = self._functions.setdefault(key, fn if self._tracer is None else self._tracer.recorded(*key, fn))
        return fn

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


def _first_accepting(ways: Sequence[tuple[Accepts | None, Function]]) -> Function:
    """The functions as one: that of the first that accepts the call. The last accepts every call."""
    *asked, (_, last) = ways
    if not asked:
        return last

    def call(*args: Any, **kwargs: Any) -> Any:
        for accepts, fn in asked:
            if accepts is not None and refusal(accepts(*args, **kwargs)) is None:
                return fn(*args, **kwargs)
        return last(*args, **kwargs)

    return call
