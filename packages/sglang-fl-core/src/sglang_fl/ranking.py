"""Which implementation serves an op, and why: a pure function of the candidates and the policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sglang_fl.errors import DispatchError
from sglang_fl.policy import SelectionPolicy, matches
from sglang_fl.records import OpImpl


@dataclass(frozen=True)
class Candidate:
    """An implementation that a plugin offers on this machine.

    Attributes:
        impl: the record.
        plugin: the plugin that offered it.
        distribution: the distribution that the plugin came in.
        unavailable: why it cannot serve here, or None when it can.
    """

    impl: OpImpl
    plugin: str
    distribution: str
    unavailable: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate: its rank from 1, or None when rejected; and why."""

    candidate: Candidate
    rank: int | None
    reason: str


@dataclass(frozen=True)
class Selection:
    """Every candidate of one op with its verdict, the ranked ones first and best first.

    ``asked`` is true when the user's order or preference names the best.
    """

    op: str
    verdicts: tuple[Verdict, ...]
    rule: str
    asked: bool = False

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """The candidates that may serve, best first."""
        return tuple(verdict.candidate for verdict in self.verdicts if verdict.rank is not None)

    def require(self) -> tuple[Candidate, ...]:
        """The candidates that may serve. Raises DispatchError when there is none."""
        if self.ranked:
            return self.ranked
        rejected = "; ".join(f"{v.candidate.impl.impl_id}: {v.reason}" for v in self.verdicts)
        raise DispatchError(
            "sglang-fl-core",
            asked=f"an implementation of {self.op} ({self.rule})",
            found=f"none left ({rejected or 'no plugin offers one'})",
            do=f"relax the setting named above, install a backend that has it, or see `sglang-fl explain {self.op}`",
        )

    def as_dict(self) -> dict[str, Any]:
        """The selection in plain types."""
        return {
            "op": self.op,
            "chosen": self.ranked[0].impl.impl_id if self.ranked else None,
            "rule": self.rule,
            "verdicts": [_verdict_as_dict(verdict) for verdict in self.verdicts],
        }


def select(op: str, candidates: Iterable[Candidate], policy: SelectionPolicy) -> Selection:
    """Filters and ranks. The same input gives the same answer in every process.

    Order: the policy's order for ``op``, then its preferred kind, then declared priority, then the id.
    """
    mine = [candidate for candidate in candidates if candidate.impl.op == op]
    rejected = {id(candidate): reason for candidate in mine if (reason := _rejection(candidate, op, policy))}
    ranked = sorted((c for c in mine if id(c) not in rejected), key=lambda c: _sort_key(c.impl, op, policy))
    last = sorted((c for c in mine if id(c) in rejected), key=lambda c: c.impl.impl_id)
    return Selection(
        op,
        tuple(
            [Verdict(c, rank, _standing(c.impl, op, policy)) for rank, c in enumerate(ranked, start=1)]
            + [Verdict(c, None, rejected[id(c)]) for c in last]
        ),
        _rule(op, policy),
        asked=bool(ranked) and any(matches(ranked[0].impl, t) for t in (*policy.order(op), *_preferred(policy))),
    )


def _rejection(candidate: Candidate, op: str, policy: SelectionPolicy) -> str | None:
    impl = candidate.impl
    if impl.vendor is not None and impl.vendor in policy.deny_vendors:
        return f"vendor {impl.vendor} is denied by {policy.source('deny_vendors')}"
    if impl.vendor is not None and policy.allow_vendors is not None and impl.vendor not in policy.allow_vendors:
        return f"vendor {impl.vendor} is not among those allowed by {policy.source('allow_vendors')}"
    if candidate.unavailable is not None:
        return f"not available: {candidate.unavailable}"
    if policy.strict and not _is_wanted(impl, op, policy):
        return f"strict ({policy.source('strict')}), and {_rule(op, policy)} does not name it"
    return None


def _is_wanted(impl: OpImpl, op: str, policy: SelectionPolicy) -> bool:
    wanted = _wanted(op, policy)
    return not wanted or any(matches(impl, token) for token in wanted)


def _wanted(op: str, policy: SelectionPolicy) -> tuple[str, ...]:
    """The tokens by which the user says what serves ``op``; none where the declared priorities decide."""
    return policy.order(op) or _preferred(policy)


def _preferred(policy: SelectionPolicy) -> tuple[str, ...]:
    return (policy.prefer,) if policy.prefer else ()


def _sort_key(impl: OpImpl, op: str, policy: SelectionPolicy) -> tuple[int, bool, int, str]:
    order = policy.order(op)
    place = next((i for i, token in enumerate(order) if matches(impl, token)), len(order))
    return place, impl.kind != policy.prefer, -(impl.priority or 0), impl.impl_id


def _standing(impl: OpImpl, op: str, policy: SelectionPolicy) -> str:
    order = policy.order(op)
    for i, token in enumerate(order, start=1):
        if matches(impl, token):
            return f"{token} is number {i} in {policy.source('per_op_order')}"
    if impl.kind == policy.prefer:
        return f"preferred by {policy.source('prefer')}"
    return f"priority {impl.priority}"


def _rule(op: str, policy: SelectionPolicy) -> str:
    if policy.order(op):
        return f"order {'|'.join(policy.order(op))} from {policy.source('per_op_order')}"
    if policy.prefer:
        return f"prefer {policy.prefer} from {policy.source('prefer')}"
    return "declared priority"


def _verdict_as_dict(verdict: Verdict) -> dict[str, Any]:
    impl = verdict.candidate.impl
    return {
        "impl_id": impl.impl_id,
        "kind": str(impl.kind),
        "vendor": impl.vendor,
        "priority": impl.priority,
        "plugin": verdict.candidate.plugin,
        "distribution": verdict.candidate.distribution,
        "rank": verdict.rank,
        "reason": verdict.reason,
    }
