"""``sglang-fl doctor``: is everything there to serve with, and if not, which command mends it?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from sglang_fl.cli.loading import aten_ops, collect, early, load_plugins, problem_of, quietly, start
from sglang_fl.cli.output import AsJson, show, show_json
from sglang_fl.cli.variables import check_variables
from sglang_fl.cli.versions import check_versions
from sglang_fl.errors import DispatchError, PlatformError, SettingsError, SglangFlError
from sglang_fl.ops import CONTRACTS
from sglang_fl.platforms import unavailability
from sglang_fl.plugins import CORE, Plugins
from sglang_fl.records import Diagnosis, Platform
from sglang_fl.settings import Settings

if TYPE_CHECKING:
    from sglang_fl.session import Session

_STATES = {True: ("ok", "green"), False: ("failed", "bold red"), None: ("note", "")}
_SUBJECTS = {SettingsError: "settings", PlatformError: "platform"}


class Line(NamedTuple):
    """A diagnosis, and the distribution whose it is."""

    by: str
    diagnosis: Diagnosis

    def as_dict(self) -> dict[str, Any]:
        """The line in plain types."""
        return {"by": self.by, **asdict(self.diagnosis)}


def doctor(as_json: AsJson = False) -> None:
    """Check SGLang, torch, drivers, settings and plugins: found, wanted, the command that mends it.

    The exit status is 1 when anything failed.
    """
    quietly()
    lines = list(dict.fromkeys(_lines()))  # an error that stops one examination may stop the next one, too
    failures = sum(line.diagnosis.ok is False for line in lines)
    if as_json:
        show_json({"failed": failures, "lines": [line.as_dict() for line in lines]})
    else:
        show(_layout(lines), f"{failures} of {len(lines)} failed")
    if failures:
        raise typer.Exit(1)


def _lines() -> Iterator[Line]:
    try:
        session = start()
    except SglangFlError as error:
        yield from _of_core(check_versions(None))
        yield Line(CORE, _failure(error))
        yield from _without_session(error)
    else:
        told = _told_by_plugins(session.plugins, session.settings)
        yield from _of_core(check_versions(session.platform.device_type))
        yield from _of_core(check_variables(os.environ, session.settings, session.platform))
        yield from _of_core(_check_session(session))
        yield from _check_plugins(session.plugins)
        yield from told


def _without_session(stopped_by: SglangFlError) -> Iterator[Line]:
    try:
        yield from _of_core(check_variables(os.environ, early(), None))
        plugins = load_plugins()
        told = [] if _torch_is_broken() else _told_by_plugins(plugins, early())  # what stands on it would tell no more
        yield from _check_plugins(plugins, stopped_by)
        yield from told
    except SglangFlError as error:
        yield Line(CORE, _failure(error))


def _torch_is_broken() -> bool:
    """Is it installed, and did not import?"""
    return find_spec("torch") is not None and "torch" not in sys.modules


def _told_by_plugins(plugins: Plugins, settings: Settings) -> list[Line]:
    """Asked before anything that may find a plugin broken: who is broken is asked no more."""
    offers = collect(plugins, "sglang_fl_diagnose", Diagnosis, settings=settings)
    return [Line(offer.plugin.distribution, offer.record) for offer in offers]


def _of_core(diagnoses: Iterator[Diagnosis]) -> Iterator[Line]:
    return (Line(CORE, diagnosis) for diagnosis in diagnoses)


def _check_session(session: Session) -> Iterator[Diagnosis]:
    yield Diagnosis(subject="settings", ok=True, found=_set(session.settings))
    yield Diagnosis(subject="platform", ok=True, found=_chosen(session))
    yield from (_check_op(op, session) for op in CONTRACTS)
    yield from _check_aten_ops(session)


def _check_op(op: str, session: Session) -> Diagnosis:
    try:
        best = session.dispatcher.select(op).require()[0]
    except DispatchError as error:
        return _failure(error, subject=op)
    return Diagnosis(subject=op, ok=True, found=f"{best.impl.impl_id} of {best.distribution}")


def _check_aten_ops(session: Session) -> Iterator[Diagnosis]:
    try:
        offers = aten_ops(session)
    except SglangFlError:  # the line of the plugin whose it is tells
        return
    if offers:
        replaced = sum(offer.record.replaced for offer in offers)
        found = f"{replaced} of {len(offers)} that backends can replace are replaced"
        yield Diagnosis(subject="ATen ops", ok=True, found=found)


def _check_plugins(plugins: Plugins, stopped_by: SglangFlError | None = None) -> Iterator[Line]:
    for plugin in plugins:
        problem = problem_of(plugin, stopped_by)
        loaded = Diagnosis(subject=str(plugin), ok=True, found="loaded")
        yield Line(CORE, loaded if problem is None else _failure(problem))


def _failure(error: SglangFlError, subject: str | None = None) -> Diagnosis:
    subject = subject or _SUBJECTS.get(type(error), error.who)
    return Diagnosis(subject=subject, ok=False, found=error.found, wanted=error.asked, remedy=error.do)


def _set(settings: Settings) -> str:
    changed = [f"{row.key} ({row.origin})" for row in settings.explain() if settings.origin(row.key).kind != "code"]
    return f"set: {', '.join(changed)}" if changed else "all at their defaults"


def _chosen(session: Session) -> str:
    chosen, settings = session.platform, session.settings
    why = f"named by {settings.origin('platform')}" if settings.platform else f"priority {chosen.priority}"
    others = [_other(offer.record) for offer in session.platforms if offer.record is not chosen]
    return "; ".join([f"{chosen.name}, {why}", *others])


def _other(platform: Platform) -> str:
    return f"not {platform.name}: {unavailability(platform.is_available) or f'priority {platform.priority}'}"


def _layout(lines: Sequence[Line]) -> Table:
    layout = Table.grid(padding=(0, 2, 0, 0))
    for by, diagnosis in lines:
        state, style = _STATES[diagnosis.ok]
        subject = diagnosis.subject if by == CORE else f"{diagnosis.subject} ({by})"
        layout.add_row(Text(state, style=style), subject, _told(diagnosis))
    return layout


def _told(diagnosis: Diagnosis) -> str:
    parts = {"": diagnosis.found, "wanted: ": diagnosis.wanted, "to do: ": diagnosis.remedy}
    return "\n".join(f"{label}{text}" for label, text in parts.items() if text)
