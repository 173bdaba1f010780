"""``sglang-fl ops``: every op and every implementation of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sglang_fl.cli.loading import start_and_note
from sglang_fl.cli.output import AsJson, show, show_json, table
from sglang_fl.ops import CONTRACTS
from sglang_fl.ranking import Selection


def ops(as_json: AsJson = False) -> None:
    """Show each op's implementations: whether they are available here, and in which order they serve."""
    session = start_and_note()
    platform, selections = session.platform.name, [session.dispatcher.select(op) for op in CONTRACTS]
    if as_json:
        show_json({"platform": platform, "ops": [_as_dict(selection) for selection in selections]})
    else:
        columns = ("op", "implementation", "kind", "priority", "distribution", "available", "rank")
        show(table(f"Ops on platform {platform}", columns, (row for each in selections for row in _rows(each))))


def _rows(selection: Selection) -> Iterator[tuple[object, ...]]:
    if not selection.verdicts:
        yield selection.op, "none is offered"
    for verdict in selection.verdicts:
        candidate, impl = verdict.candidate, verdict.candidate.impl
        available = "yes" if candidate.unavailable is None else f"no: {candidate.unavailable}"
        rank = "rejected" if verdict.rank is None else verdict.rank
        yield selection.op, impl.impl_id, impl.kind, impl.priority, candidate.distribution, available, rank


def _as_dict(selection: Selection) -> dict[str, Any]:
    verdicts = zip(selection.as_dict()["verdicts"], selection.verdicts, strict=True)
    implementations = [{**plain, "unavailable": verdict.candidate.unavailable} for plain, verdict in verdicts]
    return {"op": selection.op, "implementations": implementations}
