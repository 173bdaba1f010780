from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_fl.trace_report import Report, read_report

VERDICT = {"impl_id": "a", "plugin": "p", "rank": 1, "reason": "priority 50"}
SELECTION = {"op": "rms_norm", "chosen": "a", "rule": "declared priority", "verdicts": [VERDICT]}
ROW = {"op": "rms_norm", "layer_class": "RMSNorm", "implementation": "a", "layers": 61, "note": ""}


class Trace:
    """Writes the files of processes with chosen times, as ``TraceFile`` would write them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def process(self, pid: int, *events: tuple[str, float, dict[str, Any]], name: str = "p", host: str = "h") -> Path:
        """Each event has a kind, a time in seconds, and fields. The monotonic clock began at 1000 s."""
        start = ("start", events[0][1] if events else 0.0, {"host": host, "argv": ["serve"], "versions": {}})
        path = self.directory / f"{host}-{name}-{pid}.jsonl"
        path.write_text("".join(self._line(pid, name, *event) for event in (start, *events)))
        return path

    def _line(self, pid: int, name: str, kind: str, seconds: float, fields: dict[str, Any]) -> str:
        header = {"kind": kind, "t": 1000 + seconds, "ns": round(seconds * 1e9), "pid": pid, "process": name}
        return json.dumps({**header, "thread": pid, **fields}, separators=(",", ":")) + "\n"


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path)


@pytest.fixture
def report(tmp_path: Path) -> Callable[[], Report]:
    return lambda: read_report([tmp_path])


def call(microseconds: float, **changes: Any) -> dict[str, Any]:
    return {
        "op": "rms_norm",
        "implementation": "a",
        "layer_class": "RMSNorm",
        "layer": "layers.0",
        "shapes": {"x": [2, 4]},
        "dtypes": {"x": "bfloat16"},
        "duration_ns": round(microseconds * 1000),
        **changes,
    }


def hook(*answers: tuple[str, str | None], name: str = "h", ms: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "hook": name,
        "arguments": {},
        "plugins": [plugin for plugin, _ in answers],
        "results": [result for _, result in answers if result is not None],
        "duration_ns": round(ms * 1e6),
        **changes,
    }


# Processes


def test_processes_come_in_the_order_in_which_they_began(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("x", 5.0, {}), name="late")
    trace.process(2, ("x", 4.0, {}), name="early")
    assert [process.label for process in report().processes] == ["early (2)", "late (1)"]


def test_a_process_has_the_last_name_it_gave_itself(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("process", 1.0, {"name": "worker"}), ("process", 2.0, {"name": "scheduler TP0"}))
    trace.process(2)
    assert {process.label for process in report().processes} == {"scheduler TP0 (1)", "p (2)"}


def test_processes_of_several_hosts_are_told_apart(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("select", 1.0, SELECTION), host="a")
    trace.process(1, ("select", 2.0, SELECTION), host="b")
    assert report().selections[0].processes == ["a p (1)", "b p (1)"]


def test_damage_is_told_of_its_process(trace: Trace, report: Callable[[], Report]) -> None:
    cut = trace.process(1, ("x", 1.0, {}), ("x", 2.0, {}))
    os.truncate(cut, cut.stat().st_size - 5)
    torn = trace.process(2, ("lost", 1.0, {"records": 3}), ("lost", 2.0, {"records": 4}))
    torn.write_text(torn.read_text() + "{junk\n")
    first, second = sorted(report().processes, key=lambda process: process.pid)
    assert (first.cut, first.records, first.unreadable, first.lost) == (True, 2, 0, 0)
    assert (second.cut, second.records, second.unreadable, second.lost) == (False, 3, 1, 7)


def test_a_process_killed_before_its_first_record_is_there_by_its_files_name(
    trace: Trace, report: Callable[[], Report]
) -> None:
    os.truncate(trace.process(7), 3)
    [process] = report().processes
    assert (process.label, process.records, process.cut) == ("h-p-7", 0, True)


# PyTorch's own ops


def test_processes_that_replaced_the_same_ops_share_a_row(trace: Trace, report: Callable[[], Report]) -> None:
    for pid, ops in ((1, ["add.Tensor", "mm"]), (2, ["add.Tensor", "mm"]), (3, ["mm"])):
        trace.process(pid, ("aten", 1.0, {"distribution": "acme-chip", "ops": ops}))
    assert [(row.what["ops"], row.processes) for row in report().aten] == [
        (("add.Tensor", "mm"), ["p (1)", "p (2)"]),
        (("mm",), ["p (3)"]),
    ]


# Hook calls


def test_hook_calls_in_a_row_with_the_same_arguments_are_one_node(trace: Trace, report: Callable[[], Report]) -> None:
    calls = [hook((name, f"[{name}]"), ms=2.0) for name in ("one", "two")]
    trace.process(1, ("hook", 1.0, calls[0]), ("hook", 2.0, calls[1]), ("hook", 3.0, hook(("one", "x"), name="other")))
    first, second = report().hooks
    assert (first.hook, first.ms) == ("h", pytest.approx(4.0))
    assert [(a.plugin, a.result, a.ms) for a in first.answers] == [("one", "[one]", 2.0), ("two", "[two]", 2.0)]
    assert second.hook == "other"


def test_hook_calls_of_different_processes_or_arguments_stay_apart(trace: Trace, report: Callable[[], Report]) -> None:
    one = hook(("one", "x"))
    trace.process(1, ("hook", 1.0, one), ("hook", 3.0, {**one, "arguments": {"platform": "cpu"}}))
    trace.process(2, ("hook", 2.0, one))
    assert [(node.process, node.arguments) for node in report().hooks] == [
        ("p (1)", {}),
        ("p (1)", {"platform": "cpu"}),
        ("p (2)", {}),
    ]


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        (hook(("one", None)), [("one", "None", None)]),
        (hook(("one", "x"), ("two", "y")), [("one", "x", None), ("two", "y", None)]),
        (hook(("one", "x"), ("two", None)), [("one, two", "x", None)]),
        (hook(("one", None), raised={"plugin": "one", "error": "E()"}), [("one", None, "E()")]),
        (hook(("one", None), ("two", None), raised={"plugin": "two", "error": "E()"}), [("two", None, "E()")]),
        (hook(("one", None), ("two", None), raised={"plugin": None, "error": "E()"}), [("one or two", None, "E()")]),
    ],
)
def test_a_result_is_a_plugins_where_pluggy_tells_whose_it_is(
    trace: Trace, report: Callable[[], Report], fields: dict[str, Any], answers: list[tuple[str, str, str]]
) -> None:
    trace.process(1, ("hook", 1.0, fields))
    [node] = report().hooks
    assert [(answer.plugin, answer.result, answer.raised) for answer in node.answers] == answers


# Selections, bound layers, quarantines, other records


def test_what_processes_agree_on_is_one_row_and_what_they_do_not_is_two(
    trace: Trace, report: Callable[[], Report]
) -> None:
    other = {**SELECTION, "chosen": None, "verdicts": [{**VERDICT, "rank": None, "reason": "not available"}]}
    trace.process(1, ("select", 1.0, SELECTION), ("bound", 1.5, {"rows": [ROW, {**ROW, "op": "layer_norm"}]}))
    trace.process(2, ("select", 2.0, SELECTION), ("bound", 2.5, {"rows": [ROW]}))
    trace.process(3, ("select", 3.0, other))
    merged = report()
    assert [(row.what["chosen"], row.processes) for row in merged.selections] == [
        ("a", ["p (1)", "p (2)"]),
        (None, ["p (3)"]),
    ]
    assert [(row.what["op"], row.processes) for row in merged.bound] == [
        ("rms_norm", ["p (1)", "p (2)"]),
        ("layer_norm", ["p (1)"]),
    ]


def test_records_of_all_processes_come_in_the_order_of_time(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("x", 3.0, {"n": 3}), ("x", 1.0, {"n": 1}))
    trace.process(2, ("x", 2.0, {"n": 2}))
    assert [row.what["n"] for row in report().others] == [1, 2, 3]


def test_a_record_of_an_unknown_kind_is_kept_whole(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("future", 1.0, {"what": {"deep": [1]}}))
    [other] = report().others
    assert (other.what, other.processes) == ({"kind": "future", "what": {"deep": [1]}}, ["p (1)"])


def test_a_quarantine_tells_what_and_why(trace: Trace, report: Callable[[], Report]) -> None:
    quarantine = {"op": "rms_norm", "implementation": "a", "dtype": "torch.half", "device": "cpu", "reason": "boom"}
    trace.process(1, ("quarantine", 1.0, quarantine))
    [row] = report().quarantines
    assert row.what == quarantine


# Op calls


def test_calls_are_counted_and_timed_over_all_processes(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("call", 1.0, call(10)), ("call", 2.0, call(30)), ("call", 3.0, call(1, implementation="b")))
    trace.process(2, ("call", 1.5, call(50, raised="E()")))
    first, second = report().ops
    assert (first.op, first.implementation, first.calls, first.raised) == ("rms_norm", "a", 3, 1)
    assert (first.total_ms, first.median_us, first.max_us) == pytest.approx((0.09, 30.0, 50.0))
    assert sorted(first.processes) == ["p (1)", "p (2)"]
    assert (second.implementation, second.calls, second.processes) == ("b", 1, ["p (1)"])


def test_layers_are_counted_by_name_and_class(trace: Trace, report: Callable[[], Report]) -> None:
    layers = [("RMSNorm", "l.0"), ("RMSNorm", "l.1"), ("RMSNorm", "l.0"), ("Gemma", "m.0"), ("Nameless", None)]
    trace.process(1, *(("call", 1.0, call(1, layer_class=cls, layer=name)) for cls, name in layers))
    [row] = report().ops
    assert row.layers == {"RMSNorm": 2, "Gemma": 1, "Nameless": 0}


def test_the_most_frequent_shapes_come_first_and_the_others_are_counted(
    trace: Trace, report: Callable[[], Report]
) -> None:
    shapes = [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    trace.process(1, *(("call", 1.0, call(1, shapes={"x": [rows, 8]})) for rows in shapes))
    [row] = report().ops
    assert row.shapes == [("x[4,8] bfloat16", 4), ("x[3,8] bfloat16", 3), ("x[2,8] bfloat16", 2)]
    assert row.distinct_shapes == 4


def test_tensors_of_one_dtype_share_it(trace: Trace, report: Callable[[], Report]) -> None:
    shapes = {"query": [4, 9], "key": [4, 3], "cos": [64, 2], "position_ids": [4]}
    dtypes = {"query": "half", "key": "half", "cos": "float32", "position_ids": "int64"}
    trace.process(1, ("call", 1.0, call(1, shapes=shapes, dtypes=dtypes)))
    [(text, _)] = report().ops[0].shapes
    assert text == "query[4,9] key[4,3] half cos[64,2] float32 position_ids[4] int64"


def test_a_tensor_without_a_shape_is_shown_without(trace: Trace, report: Callable[[], Report]) -> None:
    trace.process(1, ("call", 1.0, call(1, shapes={})))
    assert report().ops[0].shapes == [("x[?] bfloat16", 1)]


def test_the_report_in_plain_types_is_json(trace: Trace, report: Callable[[], Report]) -> None:
    events = [("hook", hook(("a", "b"))), ("select", SELECTION), ("bound", {"rows": [ROW]}), ("call", call(1))]
    trace.process(1, *((kind, 1.0, fields) for kind, fields in events))
    told = json.loads(json.dumps(report().as_dict()))
    assert [len(told[name]) for name in ("processes", "hooks", "selections", "bound", "ops")] == [1] * 5
