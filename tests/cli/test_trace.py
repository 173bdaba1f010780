from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sglang_fl.cli import app
from sglang_fl.hookspecs import hookimpl
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.records import BackendImplKind, OpImpl, Platform, always
from sglang_fl.tracing import KINDS, Tracer


class Backend:
    @hookimpl
    def sglang_fl_register_ops(self, platform: Platform) -> list[OpImpl]:
        return [OpImpl(op="silu_and_mul", impl_id="[red]mine", kind=BackendImplKind.REFERENCE, fn="m:f")]


class Broken:
    @hookimpl
    def sglang_fl_register_ops(self) -> None:
        msg = "no driver"
        raise RuntimeError(msg)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The trace of a process that did a little of everything."""
    directory = tmp_path / "run"
    tracer = Tracer.start(KINDS, directory)
    assert tracer is not None
    plugins = Plugins(tracer)
    for plugin in (Backend(), Broken()):
        plugins.add(Plugin(type(plugin).__name__.lower(), "dist", "1"), plugin)
    platform = Platform(name="cpu", device_type="cpu", is_available=always, total_memory=lambda index: 1)
    plugins.call("sglang_fl_register_ops", platform=platform)
    verdicts = [
        {"impl_id": "mine", "plugin": "backend", "rank": 1, "reason": "priority 50"},
        {"impl_id": "other", "plugin": "broken", "rank": None, "reason": "not available: no driver"},
    ]
    tracer.selection({"op": "silu_and_mul", "chosen": "mine", "rule": "declared priority", "verdicts": verdicts})
    tracer.bound(
        [{"op": "silu_and_mul", "layer_class": "SiluAndMul", "implementation": "mine", "layers": 30, "note": ""}]
    )
    call = tracer.recorded("silu_and_mul", "mine", lambda obj, x: x)
    for rows in (1, 2, 3, 4, 4):
        call(None, torch.zeros(rows, 8))
    tracer.event("quarantine", op="rms_norm", implementation="x", dtype="torch.half", device="cpu", reason="boom")
    tracer.event("aten", distribution="acme-chip", ops=["add.Tensor", "mm"])
    tracer.event("surprise")
    return directory


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["trace", *(str(argument) for argument in arguments)])


def test_the_report_shows_every_section(run: Path) -> None:
    result = invoke(run)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for expected in (
        f"({os.getpid()})",
        "sglang_fl_register_ops(platform=Platform(cpu))",
        "backend: [silu_and_mul/[red]mine]",
        "broken: raised RuntimeError('no driver')",
        "silu_and_mul mine declared priority 1 mine (backend): priority 50",
        "- other (broken): not available: no driver",
        "silu_and_mul SiluAndMul mine 30",
        "2 x[4,8] float32",
        "and 1 more",
        "rms_norm x torch.half cpu boom",
        "acme-chip 2 add.Tensor, mm",
        "Other records: 1 surprise",
    ):
        assert expected in words


def test_a_damaged_file_is_reported(run: Path) -> None:
    [file] = run.iterdir()
    os.truncate(file, file.stat().st_size - 5)
    assert "the last line is incomplete" in " ".join(invoke(run).stdout.split())


def test_json_has_what_the_report_shows(run: Path) -> None:
    told = json.loads(invoke(run, "--json").stdout)
    assert [answer["plugin"] for node in told["hooks"] for answer in node["answers"]] == ["backend", "broken"]
    assert told["selections"][0]["what"]["verdicts"][1]["reason"] == "not available: no driver"
    assert told["ops"][0]["calls"] == 5
    assert told["ops"][0]["distinct_shapes"] == 4
    assert told["bound"][0]["what"]["layers"] == 30


def test_chrome_is_written_and_json_stays_json(run: Path, tmp_path: Path) -> None:
    result = invoke(run, "--json", "--chrome", tmp_path / "chrome.json")
    events = json.loads((tmp_path / "chrome.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "i"}
    assert json.loads(result.stdout)["processes"][0]["records"] == len(events)  # start has none, and its process a name
    assert f"{len(events)} events written to {tmp_path}/chrome.json" in result.stderr
    assert invoke(run, "--chrome", tmp_path / "chrome.json").stdout == ""


def test_files_and_directories_can_be_mixed(run: Path) -> None:
    [file] = run.iterdir()
    assert len(json.loads(invoke(run, file, "--json").stdout)["processes"]) == 1


@pytest.mark.parametrize("make", [None, "", "hello\n"], ids=["nothing", "an empty directory", "a foreign file"])
def test_what_is_no_trace_is_one_message(tmp_path: Path, make: str | None) -> None:
    path = tmp_path / "there"
    if make is not None:
        path.mkdir()
    if make:
        (path / "x.jsonl").write_text(make)
    result = invoke(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_chrome_file_that_cannot_be_written_is_one_message(run: Path, tmp_path: Path) -> None:
    result = invoke(run, "--chrome", tmp_path / "no" / "x.json")
    assert result.exit_code == 1
    assert f"{tmp_path}/no/x.json" in result.stderr
