"""``sglang-fl explain``: every implementation of one op, its rank or why it was rejected, and what decided that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sglang_fl.cli.loading import start
from sglang_fl.cli.output import AsJson, show, show_json, table
from sglang_fl.oot import layers_of, left_to_kernels
from sglang_fl.ops import contract_of
from sglang_fl.ranking import Selection
from sglang_fl.trace_report import Shared, read_report

Layers = dict[str, str | None]


def explain(
    op: Annotated[str, typer.Argument(metavar="OP", help="The op, as `sglang-fl ops` names it.", show_default=False)],
    traces: Annotated[
        list[Path] | None,
        typer.Option("--trace", metavar="DIR|FILE", help="Show its quarantines, too.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which implementation serves OP and why: every candidate with its rank, or why it is rejected."""
    contract_of(op)
    quarantines = _quarantines(op, traces or ())
    session = start()
    selection = session.dispatcher.select(op)
    slower = left_to_kernels(selection, session.platform)
    layers = {name: left or slower for name, left in layers_of(op, session.settings)}
    if as_json:
        rows = [{**shared.what, "processes": shared.processes} for shared in quarantines]
        show_json({**selection.as_dict(), "layers": layers, "quarantines": rows})
    else:
        show(_candidates(selection), _layers(layers, selection))
        if traces:
            show(_quarantined(quarantines))


def _quarantines(op: str, traces: Sequence[Path]) -> list[Shared]:
    return [shared for shared in read_report(traces).quarantines if shared.what["op"] == op]


def _candidates(selection: Selection) -> Table:
    plain = selection.as_dict()
    columns = ("rank", "impl_id", "kind", "vendor", "priority", "distribution", "reason")
    rows = ({**row, "rank": row["rank"] or "rejected"} for row in plain["verdicts"])
    title = f"{selection.op}: {plain['chosen'] or 'nothing'} serves, by {selection.rule}"
    return table(title, columns, ([row[column] for column in columns] for row in rows))


def _layers(layers: Layers, selection: Selection) -> Table:
    ours = selection.as_dict()["chosen"] or "nothing"
    rows = ((name, "SGLang" if left else ours, left) for name, left in layers.items())
    return table("Layers that can use it", ("layer class", "served by", "reason"), rows)


def _quarantined(quarantines: Sequence[Shared]) -> Table:
    columns = ("implementation", "dtype", "device", "reason")
    rows = ([*(each.what[column] for column in columns), ", ".join(each.processes)] for each in quarantines)
    return table("Quarantined in the trace", (*columns, "processes"), rows)
