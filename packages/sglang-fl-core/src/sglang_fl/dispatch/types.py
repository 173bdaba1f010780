"""What vendors' ``register_ops.py`` for sglang-plugin-FL import from here: :func:`sglang_fl.adopt` takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sglang_fl.records import BackendImplKind, BackendPriority

__all__ = ["BackendImplKind", "BackendPriority", "OpImpl"]


@dataclass(frozen=True)
class OpImpl:
    """One implementation in sglang-plugin-FL's terms. New backends use :class:`sglang_fl.OpImpl`."""

    op_name: str
    impl_id: str
    kind: BackendImplKind
    fn: Callable[..., Any]
    vendor: str | None = None
    priority: int = 0
    supported_dtypes: set[str] | None = None
    min_arch: str | None = None
