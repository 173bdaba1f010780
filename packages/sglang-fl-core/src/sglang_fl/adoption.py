"""Adopts the ``register_ops.py`` that a vendor wrote for sglang-plugin-FL or vllm-plugin-FL, as it is."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from sglang_fl.brief import brief
from sglang_fl.errors import PluginError
from sglang_fl.ops import CONTRACTS
from sglang_fl.records import Answer, BackendImplKind, OpImpl, always

logger = logging.getLogger(__name__)

_FIELDS = ("op_name", "impl_id", "kind", "fn", "vendor", "priority")
_UNREAD = ("supported_dtypes", "min_arch")
"""Fields that those plugins declare and never read: to obey them now would change what a vendor has tested."""


def adopt(register: Callable[[Any], None] | str) -> list[OpImpl]:
    """The implementations that ``register``, a ``register_builtins(registry)``, registers, for the hook to return::

        @hookimpl
        def sglang_fl_register_ops(platform):
            return adopt("mychip.register_ops:register_builtins")

    Each serves where its function's ``_is_available`` says so. Ops that core has no contract for stay with SGLang,
    which a warning says.

    Args:
        register: the function, or ``"module:attribute"``, imported now.

    Raises:
        PluginError: what it registers is no implementation, or declares what those plugins never obeyed.
    """
    registry = _Registry()
    (pkgutil.resolve_name(register) if isinstance(register, str) else register)(registry)
    for impl in registry.impls:
        _check(impl)
    _tell_of_unknown_ops(registry.impls)
    return [_adopted(impl) for impl in registry.impls if impl.op_name in CONTRACTS]


class _Registry:
    """What ``register_builtins`` fills."""

    def __init__(self) -> None:
        self.impls: list[Any] = []

    def register_impl(self, impl: Any) -> None:
        self.impls.append(impl)

    def register_many(self, impls: Iterable[Any]) -> None:
        self.impls.extend(impls)


def _adopted(impl: Any) -> OpImpl:
    return OpImpl(
        op=impl.op_name,
        impl_id=impl.impl_id,
        kind=BackendImplKind(getattr(impl.kind, "value", impl.kind)),
        fn=impl.fn,
        vendor=impl.vendor,
        priority=int(impl.priority) or None,  # 0 is those plugins' way to declare none
        is_available=_availability(impl),
        mutates=CONTRACTS[impl.op_name].overwritable,  # what it overwrites is not declared there: all that it may
    )


def _availability(impl: Any) -> Callable[[], Answer]:
    asked = getattr(impl.fn, "_is_available", always)
    return lambda: True if asked() else "its _is_available() says no"


def _check(impl: Any) -> None:
    missing = [name for name in _FIELDS if not hasattr(impl, name)]
    unread = [name for name in _UNREAD if getattr(impl, name, None)]
    if missing or unread:
        raise PluginError(
            "sglang_fl.adopt",
            asked=f"an implementation with {', '.join(_FIELDS)}",
            found=f"{brief(impl)} without {missing[0]}" if missing else f"{unread[0]} of {impl.op_name}/{impl.impl_id}",
            do="return an OpImpl of sglang_fl's own for it, whose `accepts` and `is_available` are obeyed",
        )


def _tell_of_unknown_ops(impls: Iterable[Any]) -> None:
    unknown = [f"{impl.op_name}/{impl.impl_id}" for impl in impls if impl.op_name not in CONTRACTS]
    if unknown:
        logger.warning("no contract for %s: SGLang's own serve", ", ".join(unknown))
