"""``sglang-fl explain``: every implementation of one op, its rank or why it was rejected, and what decided that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sglang_fl.cli.aten import explain_aten
from sglang_fl.cli.communicators import explain_communicator
from sglang_fl.cli.loading import start_and_note
from sglang_fl.cli.output import AsJson, show, show_json, table
from sglang_fl.oot import layers_of, left_to_kernels
from sglang_fl.ops import contract_of
from sglang_fl.ranking import Selection
from sglang_fl.trace_report import Shared, read_report

Layers = dict[str, str | None]


def explain(
    op: Annotated[
        str | None, typer.Argument(metavar="OP", help="The op, as `sglang-fl ops` names it.", show_default=False)
    ] = None,
    aten: Annotated[
        bool, typer.Option("--aten", help="Show PyTorch's own ops instead: all, or those that OP names, as in add.")
    ] = False,
    communicator: Annotated[
        bool, typer.Option("--communicator", help="Show the communicators of SGLang's groups instead.")
    ] = False,
    traces: Annotated[
        list[Path] | None,
        typer.Option(
            "--trace", metavar="DIR|FILE", help="Show its quarantines, or what groups got, too.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which implementation serves OP and why: every candidate with its rank, or why it is rejected."""
    if aten and traces:
        raise typer.BadParameter("a trace shows what was replaced by `sglang-fl trace`; leave --trace or --aten out")
    if communicator and (aten or op is not None):
        raise typer.BadParameter("--communicator is asked for alone: leave OP and --aten out")
    if communicator:
        explain_communicator(traces or (), as_json)
    elif aten:
        explain_aten(op, as_json)
    elif op is None:
        raise typer.BadParameter("name an op, as `sglang-fl ops` does, or ask with --aten or --communicator")
    else:
        _explain_op(op, traces or (), as_json)


def _explain_op(op: str, traces: Sequence[Path], as_json: bool) -> None:
    contract_of(op)
    quarantines = _quarantines(op, traces)
    session = start_and_note()
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
