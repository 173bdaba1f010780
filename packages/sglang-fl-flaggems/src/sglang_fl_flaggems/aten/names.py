"""What a name in a list of ops covers.

A name without an overload covers a whole op: its overloads, its in-place form and its out form. One with an overload,
as PyTorch's profiler and FX graphs show it, covers just that. FlagGems' own function names are understood as well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from sglang_fl.ops import CONTRACTS
from sglang_fl.records import without_namespace

from .table import Entry, Table


def covered(name: str, table: Table) -> frozenset[str]:
    """The keys that ``name`` covers; none for a name that FlagGems has nothing for.

    ``"add"`` covers ``add.Tensor`` and ``add_.Tensor``; ``"add_"`` only the latter; ``"add.Tensor"``,
    ``"aten::add.Tensor"`` and ``"aten.add.Tensor"`` only the former; ``"mm.default"`` is ``mm`` without ``mm.out``;
    ``"softmax"``, a function of FlagGems', covers ``_softmax``.
    """
    op, dot, overload = re.sub(r"^(torch\.ops\.)?aten(::|\.)", "", name).partition(".")
    if dot:
        key = op if overload == "default" else f"{op}.{overload}"
        return frozenset({key} & table.keys())
    return frozenset(key for key, entry in table.items() if op in _words(entry))


def covers(name: str, entry: Entry) -> bool:
    """Is ``entry`` one of those that ``name`` covers?"""
    return entry.key in covered(name, {entry.key: entry})


def nearest_names(name: str, table: Table) -> str:
    """What the user may have meant by a ``name`` that covers nothing."""
    bare = without_namespace(name.lower())
    if bare in CONTRACTS:
        return f"order the implementations of {bare}, which is no op of PyTorch's own, with op_backends"
    overloads = covered(bare.rpartition(".")[0], table)
    words = {word for entry in table.values() for word in (entry.key, *_words(entry))}
    by_lower = {word.lower(): word for word in sorted(overloads or words)}
    matches = difflib.get_close_matches(bare, by_lower, n=3, cutoff=0.0 if overloads else 0.6)
    near = [by_lower[match] for match in matches]
    listing = "`sglang-fl explain --aten` lists all, where no list is set"
    return f"did you mean {_either(near)}? {listing}" if near else listing


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _words(entry: Entry) -> set[str]:
    """The names without an overload that cover an entry."""
    forms = {entry.op, *entry.functions}
    return forms | {_canonical(form) for form in forms}


def _canonical(name: str) -> str:
    """The functional form's name, from that of an in-place or out form."""
    dunder = re.fullmatch(r"__i(and|or|xor|lshift|rshift)__", name)
    if dunder:
        return f"__{dunder[1]}__"
    return name if name.endswith("__") else name.removesuffix("_out").removesuffix("_")
