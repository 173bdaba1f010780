"""sglang-fl: serve any SGLang model on any AI chip, through pluggable ops, platforms and communicators.

Backends import :data:`hookimpl` and the records from here; users :func:`call_op`, :func:`resolve_op` and
:class:`SelectionPolicy`. Names are loaded when they are first used, so that importing a backend's hooks stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglang_fl.adoption import adopt
    from sglang_fl.api import call_op, resolve_op
    from sglang_fl.errors import SglangFlError
    from sglang_fl.hookspecs import hookimpl
    from sglang_fl.policy import SelectionPolicy
    from sglang_fl.records import (
        AtenOp,
        BackendImplKind,
        BackendPriority,
        Communicator,
        Diagnosis,
        OpImpl,
        Platform,
        Setting,
    )

_HOMES = {
    "adopt": "adoption",
    "call_op": "api",
    "resolve_op": "api",
    "SglangFlError": "errors",
    "hookimpl": "hookspecs",
    "SelectionPolicy": "policy",
    "AtenOp": "records",
    "BackendImplKind": "records",
    "BackendPriority": "records",
    "Communicator": "records",
    "Diagnosis": "records",
    "OpImpl": "records",
    "Platform": "records",
    "Setting": "records",
}

__all__ = [
    "AtenOp",
    "BackendImplKind",
    "BackendPriority",
    "Communicator",
    "Diagnosis",
    "OpImpl",
    "Platform",
    "SelectionPolicy",
    "Setting",
    "SglangFlError",
    "adopt",
    "call_op",
    "hookimpl",
    "resolve_op",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
