"""A trace as Chrome's trace events, which Perfetto (https://ui.perfetto.dev) draws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sglang_fl.trace_records import Call, HookCall, Lost, ProcessName, Record, Start, TraceError, read_records
from sglang_fl.trace_report import Process

Event = dict[str, Any]


def write_chrome(processes: Sequence[Process], file: Path) -> int:
    """Writes the records of ``processes`` to ``file`` as Chrome JSON; returns how many events it has.

    The files are read again, record by record, so a long trace needs no memory. Raises TraceError when ``file``
    cannot be written.
    """
    count = 0
    try:
        with file.open("w") as out:
            out.write('{"displayTimeUnit":"ns","traceEvents":[')
            for count, event in enumerate(chrome_events(processes), start=1):
                out.write(f"{',' if count > 1 else ''}\n{json.dumps(event, separators=(',', ':'))}")
            out.write("\n]}\n")
    except OSError as error:
        raise TraceError(
            "sglang-fl trace",
            asked=f"--chrome {file}",
            found=error.strerror or str(error),
            do="name a file that can be written",
        ) from error
    return count


def chrome_events(processes: Sequence[Process]) -> Iterator[Event]:
    """The events: a slice per hook call and op call, an instant per other record, and the processes' names."""
    began = [process for process in processes if process.records]
    origin_ns = min((round(process.started * 1e9) for process in began), default=0)
    pids = [process.pid for process in began]
    distinct = len(set(pids)) == len(pids)  # two hosts may use one pid
    for index, process in enumerate(began, start=1):
        pid = process.pid if distinct else index
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process.label}}
        for record in read_records(Path(process.file)):
            yield from _events(record, pid, (process.epoch_ns + record.ns - origin_ns) / 1e3)


def _events(record: Record, pid: int, microseconds: float) -> Iterator[Event]:
    place = {"pid": pid, "tid": record.thread, "ts": microseconds, "args": record.fields()}
    if isinstance(record, Call):
        name = f"{record.op} {record.implementation}"
        yield {"ph": "X", "cat": "call", "name": name, "dur": record.duration_ns / 1e3, **place}
    elif isinstance(record, HookCall):
        name = f"{record.hook} {', '.join(record.plugins)}"
        yield {"ph": "X", "cat": "hook", "name": name, "dur": record.duration_ns / 1e3, **place}
    elif not isinstance(record, Start | ProcessName | Lost):
        name = " ".join([record.kind, *([op] if (op := getattr(record, "op", None)) else [])])
        yield {"ph": "i", "s": "p", "cat": record.kind, "name": name, **place}
