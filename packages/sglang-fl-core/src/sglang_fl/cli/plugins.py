"""``sglang-fl plugins``: what is installed, what it offers, and what of it failed and why."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang_fl.cli.loading import collect, early, load_plugins, problem_of, quietly, start
from sglang_fl.cli.output import AsJson, error_as_dict, error_layout, show, show_json, table
from sglang_fl.errors import SglangFlError
from sglang_fl.hookspecs import PROJECT
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.records import Platform

if TYPE_CHECKING:
    from sglang_fl.session import Session

Offered = tuple[str, str, str]
"""A plugin's name, a kind of record in the plural, and the record's name."""


@dataclass(frozen=True)
class Row:
    """One plugin. ``problem`` is why it is left out, and ``offers`` has the names of its records by their kind."""

    plugin: Plugin
    state: str
    offers: Mapping[str, list[str]]
    problem: SglangFlError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row in plain types."""
        return {
            "name": self.plugin.name,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "state": self.state,
            "hooks": list(self.plugin.hooks),
            "offers": dict(self.offers),
            "problem": self.problem and error_as_dict(self.problem),
        }

    def cells(self) -> tuple[str, ...]:
        """The row as a table shows it."""
        hooks = ", ".join(hook.removeprefix(f"{PROJECT}_") for hook in self.plugin.hooks)
        offers = ", ".join(map(_summary, self.offers.items()))
        return self.plugin.name, self.plugin.distribution, self.plugin.version, self.state, offers, hooks


def plugins(as_json: AsJson = False) -> None:
    """Show every installed plugin: its distribution, its hooks, what it offers, what failed and why."""
    quietly()
    rows, error = _survey()
    if as_json:
        show_json({"plugins": [row.as_dict() for row in rows], "error": error and error_as_dict(error)})
    else:
        columns = ("plugin", "distribution", "version", "state", "offers", "hooks")
        problems = [row.problem for row in rows if row.problem and str(row.problem) != str(error)]
        show(table("Plugins", columns, (row.cells() for row in rows)), *map(error_layout, problems))
    if error is not None:
        raise error


def _survey() -> tuple[list[Row], SglangFlError | None]:
    """The plugins as SGLang would find them; or else the plugins alone, and what stops SGLang."""
    try:
        session = start()
    except SglangFlError as error:
        loaded = load_plugins()
        platforms = collect(loaded, "sglang_fl_register_platforms", Platform)
        offered = [(offer.plugin.name, "platforms", offer.record.name) for offer in platforms]
        return [*_rows(loaded, offered, error), *_disabled()], error
    return [*_rows(session.plugins, list(_offered(session))), *_disabled()], None


def _offered(session: Session) -> Iterator[Offered]:
    yield from ((offer.plugin.name, "platforms", offer.record.name) for offer in session.platforms)
    yield from ((each.plugin, "ops", f"{each.impl.op}/{each.impl.impl_id}") for each in session.candidates)
    yield from ((offer.plugin.name, "communicators", offer.record.name) for offer in session.communicators)


def _rows(plugins: Plugins, offered: Iterable[Offered], stopped_by: SglangFlError | None = None) -> Iterator[Row]:
    for plugin in plugins:
        problem = problem_of(plugin, stopped_by)
        if problem is not None:
            yield Row(plugin, "left out", {}, problem)
        else:
            offers: dict[str, list[str]] = {}
            for name, kind, record in offered:
                if name == plugin.name:
                    offers.setdefault(kind, []).append(record)
            yield Row(plugin, "ok", offers)


def _disabled() -> Iterator[Row]:
    names = early().disabled_plugins
    for entry_point in importlib.metadata.entry_points(group=PROJECT):
        if entry_point.name in names and entry_point.dist is not None:
            yield Row(Plugin(entry_point.name, entry_point.dist.name, entry_point.dist.version), "disabled", {})


def _summary(offers: tuple[str, list[str]]) -> str:
    """``platforms cpu, cuda``; of ops, which are many, only how many."""
    kind, names = offers
    return f"{len(names)} ops" if kind == "ops" else f"{kind} {', '.join(names)}"
