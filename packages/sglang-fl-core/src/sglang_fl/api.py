"""Calling ops from any code, with the implementation that the settings select."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglang_fl.session import session

if TYPE_CHECKING:
    import torch


def call_op(op: str, obj: Any, x: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
    """Calls ``op`` for the layer ``obj``: ``call_op("rms_norm", layer, x, residual)``.

    The op's signature is in :mod:`sglang_fl.ops`. A ``with SelectionPolicy(...)`` block around the call goes before
    the settings. Raises :class:`sglang_fl.errors.DispatchError` for an unknown op, or when nothing may serve it.
    """
    return session().dispatcher.call(op, obj, x, *args, **kwargs)


def resolve_op(op: str) -> Callable[..., Any]:
    """The function that the settings select for ``op``, as its author wrote it: no probation and no fallback."""
    return session().dispatcher.resolve(op)
