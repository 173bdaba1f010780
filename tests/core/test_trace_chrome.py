from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sglang_fl.trace_chrome import write_chrome
from sglang_fl.trace_records import TraceError
from sglang_fl.trace_report import read_report
from sglang_fl.tracing import Tracer


def record_a_run(directory: Path) -> None:
    tracer = Tracer.start(["calls"], directory)
    assert tracer is not None
    inner = tracer.recorded("silu_and_mul", "inner", lambda obj, x: time.sleep(0.002))
    tracer.recorded("silu_and_mul", "outer", inner)(None, torch.zeros(2, 4))
    tracer.event("quarantine", op="rms_norm", implementation="a", dtype="torch.half", device="cpu", reason="boom")
    tracer.bound([])


def chrome(directory: Path, *paths: Path) -> list[dict[str, Any]]:
    file = directory / "chrome.json"
    count = write_chrome(read_report(paths).processes, file)
    events = json.loads(file.read_text())["traceEvents"]
    assert len(events) == count
    return events


def test_calls_are_slices_that_nest_as_the_calls_did(tmp_path: Path) -> None:
    record_a_run(tmp_path / "run")
    inner, outer = [event for event in chrome(tmp_path, tmp_path / "run") if event["ph"] == "X"]
    assert (inner["name"], outer["name"]) == ("silu_and_mul inner", "silu_and_mul outer")
    assert (inner["pid"], inner["tid"]) == (outer["pid"], outer["tid"])
    assert outer["ts"] <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert 2000 <= inner["dur"] < 2_000_000  # microseconds
    assert inner["args"]["shapes"] == {"x": [2, 4]}


def test_other_records_are_instants_with_their_fields(tmp_path: Path) -> None:
    record_a_run(tmp_path / "run")
    instants = [event for event in chrome(tmp_path, tmp_path / "run") if event["ph"] == "i"]
    assert [event["name"] for event in instants] == ["quarantine rms_norm", "bound"]
    assert instants[0]["args"]["reason"] == "boom"
    assert all(event["s"] == "p" and event["ts"] > 0 for event in instants)


def test_every_process_is_named_and_time_begins_with_the_first(tmp_path: Path) -> None:
    record_a_run(tmp_path / "run")
    first, second, third = [event for event in chrome(tmp_path, tmp_path / "run") if event["ph"] != "X"]
    [process] = read_report([tmp_path / "run"]).processes
    assert first == {"ph": "M", "name": "process_name", "pid": process.pid, "args": {"name": process.label}}
    assert 2000 <= second["ts"] <= third["ts"] < 60_000_000


def test_equal_pids_of_two_hosts_are_two_processes(tmp_path: Path) -> None:
    record_a_run(tmp_path / "a")
    record_a_run(tmp_path / "b")
    pids = {event["pid"] for event in chrome(tmp_path, tmp_path / "a", tmp_path / "b")}
    assert len(pids) == 2


def test_a_trace_without_records_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cut.jsonl").touch()
    assert chrome(tmp_path, tmp_path / "run") == []


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    record_a_run(tmp_path / "run")
    with pytest.raises(TraceError, match=f"--chrome {tmp_path}/no/x.json.*No such file"):
        write_chrome(read_report([tmp_path / "run"]).processes, tmp_path / "no" / "x.json")
