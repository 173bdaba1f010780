"""``sglang-fl trace``: one report of what all processes recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sglang_fl.cli.output import AsJson, show, show_json, table
from sglang_fl.trace_chrome import write_chrome
from sglang_fl.trace_collectives import CollectiveRow
from sglang_fl.trace_report import Answer, HookNode, OpRow, Process, Report, Shared, read_report

BOUND = ("op", "layer_class", "implementation", "layers", "note")
SETTLED = ("group", "communicator", "rule", "reason")
QUARANTINED = ("op", "implementation", "dtype", "device", "reason")


def trace(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR|FILE", help="Directories of traces, or their files.")],
    chrome: Annotated[
        Path | None,
        typer.Option(
            "--chrome", metavar="FILE", help="Write it for Perfetto, and print no tables.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge what all processes recorded with SGLANG_FL_TRACE: hook calls, selections, op calls."""
    report = read_report(paths)
    if chrome is not None:
        count = write_chrome(report.processes, chrome)
        typer.echo(f"{count} events written to {chrome}: open it on https://ui.perfetto.dev", err=True)
    if as_json:
        show_json(report.as_dict())
    elif chrome is None:
        show(*_sections(report))


def _sections(report: Report) -> Iterator[RenderableType]:
    yield _processes(report.processes)
    if report.hooks:
        yield Padding(_hooks(report.hooks), (0, 0, 1, 0))
    if report.selections:
        yield _selections(report.selections)
    if report.bound:
        yield _shared("Bound layers", BOUND, report.bound)
    if report.aten:
        yield _aten(report.aten)
    if report.ops:
        yield _ops(report.ops)
        yield _shapes(report.ops)
    if report.communicators:
        yield _shared("Communicators", SETTLED, report.communicators)
    if report.collectives:
        yield _collectives(report.collectives)
    if report.quarantines:
        yield _shared("Quarantined implementations", QUARANTINED, report.quarantines)
    if report.others:
        kinds = Counter(other.what["kind"] for other in report.others)
        yield Text(f"Other records: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")


def _processes(processes: Iterable[Process]) -> Table:
    columns = ("process", "started", "records", "damage", "command")
    return table("Processes", columns, (_process(process) for process in processes))


def _process(process: Process) -> Iterator[object]:
    yield process.label
    yield f"{datetime.fromtimestamp(process.started):%F %T}" if process.records else None
    yield process.records
    yield "; ".join(_damage(process))
    yield " ".join(process.argv)


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
    columns = ("op", "chosen", "rule", "candidates", "processes")
    return table("Selections", columns, (_selection(shared) for shared in selections))


def _selection(shared: Shared) -> tuple[object, ...]:
    what = shared.what
    candidates = "\n".join(
        f"{verdict['rank'] or '-'} {verdict['impl_id']} ({verdict['plugin']}): {verdict['reason']}"
        for verdict in what["verdicts"]
    )
    return what["op"], what["chosen"] or "none", what["rule"], candidates, _names(shared.processes)


def _aten(rows: Iterable[Shared]) -> Table:
    columns = ("distribution", "overloads", "ops", "processes")
    return table("PyTorch's own ops that are replaced", columns, (_replaced(row) for row in rows))


def _replaced(row: Shared) -> tuple[object, ...]:
    names = row.what["ops"]
    return row.what["distribution"], len(names), ", ".join(names), _names(row.processes)


def _shared(title: str, columns: tuple[str, ...], rows: Iterable[Shared]) -> Table:
    heads = (*(column.replace("_", " ") for column in columns), "processes")
    return table(title, heads, ((*(row.what[column] for column in columns), _names(row.processes)) for row in rows))


def _ops(rows: Iterable[OpRow]) -> Table:
    columns = ("op", "implementation", "layers", "calls", "total ms", "median µs", "max µs", "processes")
    return table("Op calls, host time", columns, (_op(row) for row in rows))


def _op(row: OpRow) -> Iterator[object]:
    yield row.op
    yield row.implementation
    yield ", ".join(f"{n} {name}" if n else name for name, n in row.layers.items())
    yield f"{row.calls}, {row.raised} raised" if row.raised else row.calls
    yield f"{row.total_ms:.2f}"
    yield f"{row.median_us:.1f}"
    yield f"{row.max_us:.1f}"
    yield len(row.processes)


def _shapes(rows: Iterable[OpRow]) -> Table:
    columns = ("op", "implementation", "calls", "shapes")
    return table("Shapes, the most frequent first", columns, (cells for row in rows for cells in _shape_rows(row)))


def _shape_rows(row: OpRow) -> Iterator[tuple[object, ...]]:
    names: tuple[str | None, str | None] = (row.op, row.implementation)
    for shapes, calls in row.shapes:
        yield *names, calls, shapes
        names = (None, None)
    if more := row.distinct_shapes - len(row.shapes):
        yield None, None, None, f"and {more} more"


def _collectives(rows: Sequence[CollectiveRow]) -> Table:
    served = sum(row.calls for row in rows if row.communicator is not None)
    title = f"Collectives: {served} by communicators, {sum(row.calls for row in rows) - served} by SGLang's own"
    columns = ("group", "collective", "served by", "calls", "MB", "dtypes", "reason", "processes")
    return table(title, columns, (_collective(row) for row in rows))


def _collective(row: CollectiveRow) -> Iterator[object]:
    yield row.group
    yield row.collective
    yield row.communicator or "SGLang"
    yield row.calls
    yield f"{row.bytes / 1e6:.2f}"
    yield ", ".join(row.dtypes)
    yield row.reason
    yield len(row.processes)


def _names(processes: list[str]) -> str:
    shown = ", ".join(processes[:2])
    return f"{shown} and {len(processes) - 2} more" if len(processes) > 2 else shown
