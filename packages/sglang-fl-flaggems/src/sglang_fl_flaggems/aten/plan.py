"""What the settings come to: each op that FlagGems has a function for, whether it is to be replaced, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from sglang_fl import AtenOp, SglangFlError

from .names import covered, covers, nearest_names
from .settings import WHO, by_user
from .table import Entry, Table

if TYPE_CHECKING:
    from sglang_fl.settings import Settings


WRONG = "FlagGems gets it wrong"


@dataclass(frozen=True, kw_only=True)
class GemsOp(AtenOp):
    """An op that FlagGems has a function for.

    Attributes:
        entry: what FlagGems registers for it.
    """

    entry: Entry

    def covered_by(self, name: str) -> bool:
        """Does ``name`` in a list of ours cover it?"""
        return covers(name, self.entry)


@dataclass(frozen=True)
class _List:
    """A list of ops in the settings.

    Attributes:
        title: its key, and where it stands.
        is_set: somebody wrote one, even if it names nothing that exists here.
        names: key -> the name in the list that covers it.
    """

    title: str
    is_set: bool
    names: dict[str, str]


def plan(
    table: Table, settings: Settings, has_op: Callable[[str], bool], wrong: Mapping[str, str] = MappingProxyType({})
) -> list[GemsOp]:
    """Every entry of ``table``, by name.

    Args:
        has_op: does this PyTorch have the overload? FlagGems registers for newer and older ones, too.
        wrong: overload -> what FlagGems' function for it gets wrong, and does not tell. It is replaced only if a
            whitelist that the user wrote names it.

    Raises:
        SglangFlError: a list that the user wrote names an op that FlagGems or PyTorch does not have.
    """
    switch = f"use_flaggems ({settings.origin('use_flaggems')})"
    if not settings.of_backends["use_flaggems"]:
        return [_row(table, key, False, f"{switch} is off") for key in sorted(table)]
    whitelist = _read("flagos_whitelist", table, settings)
    blacklist = _read("flagos_blacklist", table, settings)
    wanted = whitelist.names if by_user(settings, "flagos_whitelist") else {}
    if wanted:
        _refuse_absent(whitelist.title, settings.of_backends["flagos_whitelist"], table, has_op)
    return [
        _row(table, key, False, f"{WRONG}: {wrong[key]}")
        if key in wrong and key not in wanted and has_op(key)
        else _decide(table, key, has_op(key), switch, whitelist, blacklist)
        for key in sorted(table)
    ]


def wrong_and_wanted(rows: Iterable[AtenOp], wrong: Mapping[str, str]) -> Iterator[str]:
    """What the user has replaced although FlagGems gets it wrong: a warning for each."""
    for row in rows:
        if row.replaced and row.name in wrong:
            yield f"{row.name} is replaced, as you ask ({row.reason}), but {WRONG}: {wrong[row.name]}"


def unknown_defaults(table: Table, settings: Settings) -> Iterator[str]:
    """The names in a platform's defaults that this FlagGems has nothing for: a warning for each.

    They are written for other releases of FlagGems, too, so they are no error.
    """
    for key in ("flagos_whitelist", "flagos_blacklist"):
        for name in settings.of_backends[key]:
            if not covered(name, table):
                yield f"{key} ({settings.origin(key)}) names {name!r}, for which this FlagGems has nothing"


def _decide(table: Table, key: str, exists: bool, switch: str, whitelist: _List, blacklist: _List) -> GemsOp:
    if not exists:
        return _row(table, key, False, "this PyTorch has no such op")
    if key in whitelist.names:
        return _row(table, key, True, f"{whitelist.names[key]} in {whitelist.title}")
    if whitelist.is_set:
        return _row(table, key, False, f"not in {whitelist.title}")
    if key in blacklist.names:
        return _row(table, key, False, f"{blacklist.names[key]} in {blacklist.title}")
    return _row(table, key, True, switch)


def _row(table: Table, key: str, replaced: bool, reason: str) -> GemsOp:
    entry = table[key]
    return GemsOp(name=key, by=f"flag_gems.{entry.functions[-1]}", replaced=replaced, reason=reason, entry=entry)


def _read(key: str, table: Table, settings: Settings) -> _List:
    written = settings.of_backends[key]
    read = _List(f"{key} ({settings.origin(key)})", written != (), {})
    for name in written:
        keys = covered(name, table)
        if not keys and by_user(settings, key):
            raise SglangFlError(
                WHO,
                asked=f"{name!r} in {read.title}",
                found="that FlagGems has no function for an op of that name",
                do=nearest_names(name, table),
            )
        read.names.update((one, name) for one in keys if one not in read.names)
    return read


def _refuse_absent(title: str, names: Iterable[str], table: Table, has_op: Callable[[str], bool]) -> None:
    """A name may cover an overload of another PyTorch's, but not only such ones."""
    for name in names:
        if not any(map(has_op, covered(name, table))):
            raise SglangFlError(
                WHO,
                asked=f"{name!r} in {title}",
                found="that this PyTorch has no such op",
                do=f"leave {name!r} out",
            )
