"""What a user wants of the ranking, as one value that can also rule a single block of code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sglang_fl.errors import SettingsError, nearest
from sglang_fl.ops import CONTRACTS
from sglang_fl.records import BackendImplKind, OpImpl
from sglang_fl.settings import FrozenMapping

if TYPE_CHECKING:
    from sglang_fl.settings import Settings

_KINDS = tuple(kind.value for kind in BackendImplKind)

# A stack rather than a token per object: one policy may rule nested blocks, threads and tasks at once.
_entered: ContextVar[tuple[SelectionPolicy, ...]] = ContextVar("sglang_fl_policies", default=())


@dataclass(frozen=True)
class SelectionPolicy:
    """Which implementations may serve, and in which order.

    Used as ``with SelectionPolicy(prefer="reference"): ...`` it replaces the settings' policy for the
    ``call_op`` and ``resolve_op`` of that block, in this thread or task only. Layers already bound stay bound.

    Attributes:
        prefer: the kind to put first, or None to go by declared priority.
        strict: nothing but what is preferred may serve, and a failure is an error, never a fallback.
        per_op_order: op -> tokens, best first: ``flagos``, ``vendor``, ``reference``, ``vendor:NAME``, ``impl:ID``.
        allow_vendors: the only vendors that may serve, or None for all.
        deny_vendors: vendors that may not.
        said_by: field -> the setting that says so, for explanations.

    Raises:
        SettingsError: for a value without a meaning. Vendors and ids that nobody offers are none of these: one
            policy may be meant for several machines.
    """

    prefer: str | None = None
    strict: bool = False
    per_op_order: Mapping[str, Iterable[str]] = field(default_factory=FrozenMapping)
    allow_vendors: Collection[str] | None = None
    deny_vendors: Collection[str] = ()
    said_by: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.prefer is not None and self.prefer not in _KINDS:
            raise _refused(f"prefer {self.prefer!r}", "no such kind", nearest(str(self.prefer), _KINDS))
        if not isinstance(self.strict, bool):
            raise _refused(f"strict {self.strict!r}", "no truth value", "write True or False")
        allowed = None if self.allow_vendors is None else _names("allow_vendors", self.allow_vendors)
        object.__setattr__(self, "prefer", None if self.prefer is None else str(self.prefer))
        object.__setattr__(self, "per_op_order", _orders(self.per_op_order))
        object.__setattr__(self, "allow_vendors", allowed)
        object.__setattr__(self, "deny_vendors", _names("deny_vendors", self.deny_vendors))

    @classmethod
    def of(cls, settings: Settings) -> SelectionPolicy:
        """The policy that the settings describe."""
        keys = {
            "prefer": "prefer",
            "strict": "strict",
            "per_op_order": "op_backends",
            "allow_vendors": "allow_vendors",
            "deny_vendors": "deny_vendors",
        }
        return cls(
            **{name: getattr(settings, key) for name, key in keys.items()},
            said_by={name: str(settings.origin(key)) for name, key in keys.items()},
        )

    def order(self, op: str) -> tuple[str, ...]:
        """The user's own order for ``op``, empty when there is none."""
        return tuple(self.per_op_order.get(op, ()))

    def source(self, name: str) -> str:
        """Who said what field ``name`` says."""
        return self.said_by.get(name, "a SelectionPolicy in the code")

    def __enter__(self) -> SelectionPolicy:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        # Its own entry, which is not always the last: a generator's block may end within another's.
        entered = list(_entered.get())
        if self in entered:
            del entered[len(entered) - 1 - entered[::-1].index(self)]
        _entered.set(tuple(entered))


def entered_policy() -> SelectionPolicy | None:
    """The policy of the innermost ``with`` block around the caller, if any."""
    entered = _entered.get()
    return entered[-1] if entered else None


def matches(impl: OpImpl, token: str) -> bool:
    """Does ``token`` mean ``impl``?"""
    prefix, _, name = token.partition(":")
    if prefix == "impl":
        return impl.impl_id == name
    return impl.kind == prefix and (not name or impl.vendor == name)


def _orders(orders: object) -> FrozenMapping[str, tuple[str, ...]]:
    if not isinstance(orders, Mapping):
        raise _refused(f"per_op_order {orders!r}", "no mapping", 'write a mapping, as in {"rms_norm": ["vendor"]}')
    return FrozenMapping({op: _order(op, tokens) for op, tokens in orders.items()})


def _order(op: str, tokens: Iterable[str]) -> tuple[str, ...]:
    if op not in CONTRACTS:
        raise _refused(f"an order for the op {op!r}", "no such op", nearest(str(op), CONTRACTS))
    if isinstance(tokens, str):
        raise _refused(f"the order {tokens!r} for {op}", "a single text", "write a list of tokens, best first")
    order = tuple(tokens)
    for token in order:
        if not _is_token(token):
            do = f"use {', '.join(_KINDS)}, vendor:NAME or impl:ID"
            raise _refused(f"the token {token!r} for {op}", "no such token", do)
    return tuple(map(str, order))


def _is_token(token: object) -> bool:
    if not isinstance(token, str):
        return False
    prefix, _, name = token.partition(":")
    return token in _KINDS or (prefix in ("vendor", "impl") and name != "")


def _names(what: str, names: object) -> frozenset[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise _refused(f"{what} {names!r}", "no list", f'write a list of vendors, as in {what}=["ascend"]')
    return frozenset(names)


def _refused(asked: str, found: str, do: str) -> SettingsError:
    return SettingsError("SelectionPolicy", asked=asked, found=found, do=do)
