"""What serves a running server's layers, as its workers tell it in a trace."""

from __future__ import annotations

from pathlib import Path

from sglang_fl.errors import SglangFlError
from sglang_fl.trace_records import Bound, BoundRow, read_records, trace_files


def tracing(folder: Path) -> dict[str, str]:
    """The environment that makes a server's processes write their traces into ``folder``."""
    return {"SGLANG_FL_TRACE": "select", "SGLANG_FL_TRACE_DIR": str(folder)}


def bound_rows(folder: Path) -> list[BoundRow]:
    """One row for each (op, layer class, implementation), of the first worker in ``folder``: ranks bind alike.

    Raises SglangFlError when no worker has told.
    """
    records = (record for file in trace_files([folder]) for record in read_records(file))
    bound = next((record for record in records if isinstance(record, Bound)), None)
    if bound is None:
        raise SglangFlError(
            "examples.bound",
            asked=f"what the layers are bound to, in the traces of {folder}",
            found="no worker that says so",
            do="see in the server's log whether SGLang has loaded the plugin",
        )
    return list(bound.rows)
