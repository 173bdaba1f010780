from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglang_fl.tracing import Tracer
from tests.cli.conftest import Cli, Install

ACMECL = """
    from sglang_fl import Communicator, hookimpl

    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [
            Communicator(name="acmecl", create="acme_chip:never", vendor="acme", priority=130),
            Communicator(name="acmelib", create="acme_chip:never", is_available=lambda: "libacme.so is not found"),
        ]
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The trace of a process whose group passed over a communicator."""
    tracer = Tracer.start({"select"}, tmp_path / "trace")
    assert tracer is not None
    reason = "acmecl: rank 1: OSError: no device"
    tracer.communicator(group="tp:0", ranks=[0, 1], communicator="gloo", rule="declared priority", reason=reason)
    return tmp_path / "trace"


def test_every_communicator_is_shown_with_its_rank_or_why_it_has_none(cli: Cli, install: Install) -> None:
    install("acme-chip", ACMECL)

    told = json.loads(cli("explain", "--communicator", "--json").stdout)

    assert (told["chosen"], told["rule"], told["groups"]) == ("acmecl", "declared priority", [])
    rows = {row["communicator"]: (row["rank"], row["distribution"], row["reason"]) for row in told["verdicts"]}
    assert rows == {
        "acmecl": (1, "acme-chip", "priority 130"),
        "acmelib": (None, "acme-chip", "not available: libacme.so is not found"),
        "gloo": (2, "sglang", "SGLang's own"),
        "torch": (3, "sglang-fl-core", "priority 50"),
    }


def test_the_setting_that_decides_is_named(cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme-chip", ACMECL)
    monkeypatch.setenv("SGLANG_FL_DIST_BACKEND", "torch")
    monkeypatch.setenv("SGLANG_FL_DENY_VENDORS", "acme")

    shown = cli("explain", "--communicator").stdout

    assert "torch, by communicator torch from SGLANG_FL_DIST_BACKEND" in " ".join(shown.split())
    (denied,) = (line for line in shown.splitlines() if "acmecl" in line)
    assert denied.split()[0] == "rejected"
    assert "vendor acme is denied by SGLANG_FL_DENY_VENDORS" in denied


def test_a_trace_shows_what_each_group_got_and_why(cli: Cli, trace: Path) -> None:
    shown = cli("explain", "--communicator", "--trace", str(trace)).stdout
    (group,) = (line.split() for line in shown.splitlines() if "tp:0" in line)
    assert group == ["tp:0", "0,", "1", "gloo", "acmecl:", "rank", "1:", "OSError:", "no", "device"]

    told = json.loads(cli("explain", "--communicator", "--trace", str(trace), "--json").stdout)
    assert [(each["group"], each["communicator"]) for each in told["groups"]] == [("tp:0", "gloo")]


@pytest.mark.parametrize("others", [["rms_norm"], ["--aten"]])
def test_it_is_asked_for_alone(others: list[str], cli: Cli) -> None:
    result = cli("explain", "--communicator", *others)
    assert result.exit_code == 2
    assert "asked for alone" in " ".join(result.output.split())


def test_the_report_of_a_trace_has_the_groups_and_the_count_of_collectives(cli: Cli, tmp_path: Path) -> None:
    import torch

    tracer = Tracer.start({"calls", "select"}, tmp_path / "trace")
    assert tracer is not None
    tracer.communicator(group="tp:0", ranks=[0, 1], communicator="acmecl", rule="declared priority", reason="")
    refusal = tracer.collectives("tp:0", "acmecl", lambda collective, tensor: "no" if tensor.numel() > 2 else None)
    assert [refusal("all_reduce", torch.ones(size)) for size in (2, 2, 3)] == [None, None, "no"]

    shown = cli("trace", str(tmp_path / "trace")).stdout

    assert "Collectives: 2 by communicators, 1 by SGLang's own" in shown
    rows = [line.split() for line in shown.splitlines() if "all_reduce" in line]
    assert rows == [
        ["tp:0", "all_reduce", "acmecl", "2", "0.00", "float32", "1"],
        ["tp:0", "all_reduce", "SGLang", "1", "0.00", "float32", "no", "1"],
    ]
    assert ["tp:0", "acmecl", "declared", "priority"] in [line.split()[:4] for line in shown.splitlines()]
