"""How the commands print: rich tables for people, one JSON document with ``--json``, errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import IO, Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table

from sglang_fl.errors import SglangFlError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_VERBATIM: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
_ENDLESS = 10_000  # columns: where no window limits the width, no line is broken, so that ids can be searched for
_PROSE = 16  # columns: prose is broken no narrower, and a window that is narrower still breaks the lines itself


def show(*renderables: RenderableType) -> None:
    """Prints on stdout. Plugins' texts come out as they are, whatever markup they look like."""
    _print(sys.stdout, *renderables)


def show_json(document: Mapping[str, Any]) -> None:
    """Prints ``document`` on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_error(error: SglangFlError) -> None:
    """Prints ``error`` on stderr."""
    _print(sys.stderr, error_layout(error))


def error_layout(error: SglangFlError) -> Table:
    """Who speaks, what was asked, what was found and what to do, one under the other."""
    layout = Table.grid(padding=(0, 2, 0, 0))
    layout.add_row("error", error.who, style="bold red")
    layout.add_row("asked", error.asked)
    layout.add_row("found", error.found)
    layout.add_row("to do", error.do)
    return layout


def error_as_dict(error: SglangFlError) -> dict[str, str]:
    """The error's four parts."""
    return {"who": error.who, "asked": error.asked, "found": error.found, "do": error.do}


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table with a row for each of ``rows``; None is an empty cell. In a narrow window prose is broken before ids."""
    result = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for head, *cells in zip_longest(columns, *texts, fillvalue=""):
        is_prose = any(" " in cell for cell in cells)
        widest = max(map(cell_len, "\n".join([head, *cells]).split("\n")))
        least = min(widest, _PROSE) if is_prose else widest
        result.add_column(head, overflow="fold", no_wrap=not is_prose, min_width=least)
    for text in texts:
        result.add_row(*text)
    return result


def _print(file: IO[str], *renderables: RenderableType) -> None:
    if file.isatty():
        Console(file=file, **_VERBATIM).print(*renderables, sep="\n", crop=False)
        return
    console = Console(width=_ENDLESS, **_VERBATIM)
    with console.capture() as captured:
        console.print(*renderables, sep="\n")
    file.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
