"""``sglang-fl explain --communicator``: every communicator, its rank or why it is rejected, and what groups got."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from sglang_fl.cli.loading import start_and_note
from sglang_fl.cli.output import show, show_json, table
from sglang_fl.trace_report import Shared, read_report

if TYPE_CHECKING:
    from sglang_fl.communication.selection import CommunicatorSelection


def explain_communicator(traces: Sequence[Path], as_json: bool) -> None:
    """Shows the ranking as this machine sees it, and with ``traces``, what the ranks of each group agreed on."""
    settled = read_report(traces).communicators if traces else []
    selection = start_and_note().communicator
    if as_json:
        groups = [{**shared.what, "processes": shared.processes} for shared in settled]
        show_json({**selection.as_dict(), "groups": groups})
    else:
        show(_candidates(selection))
        if traces:
            show(_groups(settled))


def _candidates(selection: CommunicatorSelection) -> Table:
    plain = selection.as_dict()
    columns = ("rank", "communicator", "vendor", "priority", "distribution", "reason")
    rows = ({**row, "rank": row["rank"] or "rejected"} for row in plain["verdicts"])
    title = f"Communicator of a group: {plain['chosen'] or 'none'}, by {plain['rule']}, if every rank can start it"
    return table(title, columns, ([row[column] for column in columns] for row in rows))


def _groups(settled: Sequence[Shared]) -> Table:
    columns = ("group", "ranks", "communicator", "reason")
    rows = (
        (each.what["group"], ", ".join(map(str, each.what["ranks"])), each.what["communicator"], each.what["reason"])
        for each in settled
    )
    return table("What groups got in the trace", columns, rows)
