"""What a user wants of the ranking, as one value that can also rule a single block of code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    """

    prefer: str | None = None
    strict: bool = False
    per_op_order: Mapping[str, Iterable[str]] = field(default_factory=FrozenMapping)
    allow_vendors: Collection[str] | None = None
    deny_vendors: Collection[str] = ()
    said_by: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.prefer is not None and self.prefer not in _KINDS:
            msg = f"prefer is {self.prefer!r}, but must be one of {', '.join(_KINDS)}"
            raise ValueError(msg)
        orders = FrozenMapping({op: tuple(tokens) for op, tokens in self.per_op_order.items()})
        for token in (token for tokens in orders.values() for token in tokens):
            check_token(token)
        allowed = None if self.allow_vendors is None else frozenset(self.allow_vendors)
        object.__setattr__(self, "per_op_order", orders)
        object.__setattr__(self, "allow_vendors", allowed)
        object.__setattr__(self, "deny_vendors", frozenset(self.deny_vendors))

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
        _entered.set(_entered.get()[:-1])


def entered_policy() -> SelectionPolicy | None:
    """The policy of the innermost ``with`` block around the caller, if any."""
    entered = _entered.get()
    return entered[-1] if entered else None


def check_token(token: str) -> None:
    """Raises ValueError unless ``token`` has the form of one."""
    prefix, _, name = token.partition(":")
    if token not in _KINDS and not (prefix in ("vendor", "impl") and name):
        msg = f"{token!r} is no token: use {', '.join(_KINDS)}, vendor:NAME or impl:ID"
        raise ValueError(msg)


def matches(impl: OpImpl, token: str) -> bool:
    """Does ``token`` mean ``impl``?"""
    prefix, _, name = token.partition(":")
    if prefix == "impl":
        return impl.impl_id == name
    return impl.kind == prefix and (not name or impl.vendor == name)
