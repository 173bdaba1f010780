"""``sglang-fl trace``: one report of what all processes recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sglang_fl.trace_chrome import write_chrome
from sglang_fl.trace_records import TraceError
from sglang_fl.trace_report import Answer, HookNode, OpRow, Process, Report, Shared, read_report


def trace(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR|FILE", help="Directories of traces, or their files.")],
    chrome: Annotated[
        Path | None, typer.Option("--chrome", metavar="FILE", help="Write it for Perfetto, too.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Merge what all processes recorded with SGLANG_FL_TRACE: hook calls, selections, op calls."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
    try:
        report = read_report(paths)
        if chrome is not None:
            count = write_chrome(report.processes, chrome)
            errors.print(f"{count} events written to {chrome}: open it on https://ui.perfetto.dev")
    except TraceError as error:
        errors.print(str(error), style="red")
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        # Plugins' texts are printed as they are: no markup, no emoji.
        Console(markup=False, highlight=False, emoji=False).print(Group(*_sections(report)))


def _sections(report: Report) -> Iterator[RenderableType]:
    yield _processes(report.processes)
    if report.hooks:
        yield _hooks(report.hooks)
    if report.selections:
        yield _selections(report.selections)
    if report.bound:
        columns = ("op", "layer_class", "implementation", "layers", "note")
        yield _shared("Bound layers", columns, report.bound)
    if report.ops:
        yield _ops(report.ops)
    if report.quarantines:
        columns = ("op", "implementation", "dtype", "device", "reason")
        yield _shared("Quarantined implementations", columns, report.quarantines)
    if report.others:
        kinds = Counter(other.what["kind"] for other in report.others)
        yield Text(f"Other records: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")


def _processes(processes: Iterable[Process]) -> Table:
    table = _table("Processes", "process", "started", "records", "damage", "command")
    for process in processes:
        started = datetime.fromtimestamp(process.started).strftime("%F %T") if process.records else ""
        table.add_row(process.label, started, str(process.records), "; ".join(_damage(process)), " ".join(process.argv))
    return table


def _damage(process: Process) -> Iterator[str]:
    if process.cut:
        yield "the last line is incomplete"
    if process.unreadable:
        yield f"{process.unreadable} unreadable lines"
    if process.lost:
        yield f"{process.lost} records could not be written"


def _hooks(nodes: Iterable[HookNode]) -> Tree:
    root = Tree(Text("Hook calls", style="bold"))
    branches: dict[str, Tree] = {}
    for node in nodes:
        process = branches.get(node.process) or branches.setdefault(node.process, root.add(node.process))
        arguments = ", ".join(f"{name}={value}" for name, value in node.arguments.items())
        hook = process.add(f"{node.hook}({arguments})  {node.ms:.2f} ms")
        for answer in node.answers:
            hook.add(_answer(answer))
    return root


def _answer(answer: Answer) -> Text:
    time = "" if answer.ms is None else f"  {answer.ms:.2f} ms"
    if answer.raised is not None:
        return Text(f"{answer.plugin}: raised {answer.raised}{time}", style="red")
    return Text(f"{answer.plugin}: {answer.result}{time}")


def _selections(selections: Iterable[Shared]) -> Table:
    table = _table("Selections", "op", "chosen", "rule", "candidates", "processes")
    for shared in selections:
        what = shared.what
        candidates = "\n".join(
            f"{verdict['rank'] or '-'} {verdict['impl_id']} ({verdict['plugin']}): {verdict['reason']}"
            for verdict in what["verdicts"]
        )
        table.add_row(what["op"], what["chosen"] or "none", what["rule"], candidates, _names(shared.processes))
    return table


def _shared(title: str, columns: tuple[str, ...], rows: Iterable[Shared]) -> Table:
    table = _table(title, *(column.replace("_", " ") for column in columns), "processes")
    for row in rows:
        table.add_row(*(_text(row.what.get(column)) for column in columns), _names(row.processes))
    return table


def _ops(rows: Iterable[OpRow]) -> Table:
    table = _table("Op calls", "op", "implementation", "calls", "layers", "shapes")
    for column in ("total ms", "median µs", "max µs"):
        table.add_column(column, justify="right")
    table.add_column("processes")
    for row in rows:
        calls = f"{row.calls}, {row.raised} raised" if row.raised else str(row.calls)
        times = f"{row.total_ms:.2f}", f"{row.median_us:.1f}", f"{row.max_us:.1f}"
        layers = ", ".join(f"{n} {name}" if n else name for name, n in row.layers.items())
        table.add_row(row.op, row.implementation, calls, layers, _shapes(row), *times, _names(row.processes))
    return table


def _shapes(row: OpRow) -> str:
    lines = [f"{n} of {shapes}" for shapes, n in row.shapes]
    more = row.distinct_shapes - len(row.shapes)
    return "\n".join([*lines, f"and {more} more"] if more else lines)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _names(processes: list[str]) -> str:
    shown = ", ".join(processes[:2])
    return f"{shown} and {len(processes) - 2} more" if len(processes) > 2 else shown


def _text(value: Any) -> str:
    return "" if value is None else str(value)
