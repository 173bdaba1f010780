"""FlagGems' functions in PyTorch's dispatcher: putting them there, and looking at what is there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .plan import GemsOp
from .record import Wrap
from .table import NAME, Entry


def has_op(key: str) -> bool:
    """Does this PyTorch have the overload ``key`` of an ATen op?"""
    op, _, overload = key.partition(".")
    return hasattr(getattr(torch.ops.aten, op, None), overload or "default")


def register(keys: Collection[str], flag_gems: Any, wrap: Wrap | None = None) -> None:
    """Lets FlagGems register its functions for just ``keys``, as ``wrap`` makes them, in this process, for good.

    Its own lists go by the names of functions: they pass over a name that is none in silence, and one op may have
    several functions. So it is given the rows that are wanted, through the registrar that it lets callers choose.
    """

    def registrar(rows: Iterable[tuple[Any, ...]], **options: Any) -> Any:
        chosen = [row for row in rows if row[0] in keys]
        if wrap is not None:
            chosen = [(key, wrap(key, function), *more) for key, function, *more in chosen]
        return flag_gems.registrar(chosen, **options)

    flag_gems.enable(unused=[], registrar=registrar)


def rows_of(flag_gems: Any) -> Iterable[tuple[Any, ...]]:
    """What FlagGems registers from: (key, function) and more."""
    return getattr(flag_gems, NAME)  # type: ignore[no-any-return]


def as_it_is(row: GemsOp, flag_gems: Any) -> GemsOp:
    """``row`` as PyTorch's dispatcher has it, now that FlagGems has registered."""
    replaced = _is_replaced(row.name, flag_gems)
    if replaced == row.replaced:
        return row
    reason = "replaced all the same" if replaced else own_rule(row.entry, flag_gems) or "FlagGems did not register it"
    return replace(row, replaced=replaced, reason=reason)


def own_rule(entry: Entry, flag_gems: Any) -> str | None:
    """Why FlagGems of itself does not register an entry on this chip or beside this PyTorch, if that may be."""
    registrar = flag_gems.current_work_registrar
    if set(entry.functions) & set(registrar.get_unused_ops()):
        return f"FlagGems leaves it out on {registrar.get_vendor_name()}"
    return None if entry.condition is None else f"FlagGems registers it only if {entry.condition}"


def _is_replaced(key: str, flag_gems: Any) -> bool:
    """Does the dispatcher go to FlagGems for ``key``? FlagGems' own list names what failed to register, too."""
    if not has_op(key):
        return False
    device = flag_gems.current_work_registrar.reg_key  # "CUDA"
    kernel = re.search(rf"^{device}: registered at (.*):\d+ ::", torch._C._dispatch_dump(f"aten::{key}"), re.MULTILINE)
    package = Path(flag_gems.__file__).parent
    in_python = kernel is not None and package in Path(kernel[1]).parents
    return in_python or key in flag_gems.config.aten_patch_list  # its C++ library registers at import, unasked
