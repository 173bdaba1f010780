from __future__ import annotations

from typing import Any

from sglang_fl.trace_collectives import CollectiveCounts
from sglang_fl.trace_records import Collective


def record(collective: str, communicator: str | None, reason: str | None = None, **fields: Any) -> Collective:
    head = {"kind": "collective", "t": 1.0, "ns": 1, "pid": 1, "process": "p", "thread": 1}
    what = {"group": "tp:0", "collective": collective, "communicator": communicator, "reason": reason}
    return Collective(**{**head, **what, "dtype": "float32", "bytes": 8, **fields})


def test_calls_are_counted_by_where_they_went_and_why() -> None:
    counts = CollectiveCounts()
    for file in ("a", "b"):
        counts.add(file, record("all_reduce", "acme"))
        counts.add(file, record("all_reduce", None, "acme has no all_reduce of int8", dtype="int8", bytes=1))
    counts.add("b", record("all_reduce", "acme", dtype="float16", bytes=4))
    counts.add("a", record("all_gather", "acme", group="pp:0"))

    rows = counts.rows({"a": "rank 0", "b": "rank 1"})

    told = [(r.group, r.collective, r.communicator, r.reason, r.calls, r.bytes, r.dtypes, r.processes) for r in rows]
    why = "acme has no all_reduce of int8"
    assert told == [
        ("pp:0", "all_gather", "acme", None, 1, 8, {"float32": 1}, ["rank 0"]),
        ("tp:0", "all_reduce", "acme", None, 3, 20, {"float32": 2, "float16": 1}, ["rank 0", "rank 1"]),
        ("tp:0", "all_reduce", None, why, 2, 2, {"int8": 2}, ["rank 0", "rank 1"]),
    ]
