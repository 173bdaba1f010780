from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sglang_fl.dispatch import Dispatcher
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import BackendImplKind, OpImpl
from sglang_fl.tracing import Tracer
from tests.cli.conftest import Cli, Install
from tests.cli.vendors import ACME, WITH_ATEN_OPS


def fail(obj: object, x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("illegal instruction")


def candidate(op: str, impl_id: str, fn: Callable[..., torch.Tensor], priority: int) -> Candidate:
    impl = OpImpl(op=op, impl_id=impl_id, kind=BackendImplKind.DEFAULT, fn=fn, priority=priority)
    return Candidate(impl, "acme_chip", "acme-chip")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The trace of a process in which an implementation of silu_and_mul was quarantined."""
    directory = tmp_path / "trace"
    tracer = Tracer.start({"select"}, directory)
    candidates = [
        candidate("silu_and_mul", "flagos.bad", fail, 2),
        candidate("silu_and_mul", "flagos.good", lambda obj, x: x[..., : x.shape[-1] // 2], 1),
    ]
    Dispatcher(candidates, SelectionPolicy(), tracer).call("silu_and_mul", object(), torch.zeros(1, 2))
    return directory


def test_json_is_the_selection_with_layers_and_quarantines(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME)

    told = json.loads(cli("explain", "rms_norm", "--json").stdout)

    assert (told["op"], told["chosen"], told["rule"]) == ("rms_norm", "vendor.acme", "declared priority")
    assert [(row["rank"], row["impl_id"], row["reason"]) for row in told["verdicts"]] == [
        (1, "vendor.acme", "priority 100"),
        (2, "reference.torch", "priority 50"),
    ]
    assert told["layers"]["RMSNorm"] is None
    assert told["quarantines"] == []


def test_unavailable_candidate_is_named_with_its_reason(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME)

    line = next(line for line in cli("explain", "silu_and_mul").stdout.splitlines() if "vendor.acme" in line)

    assert line.split()[0] == "rejected"
    assert "not available: [b]acme.ko[/b] is not loaded :cry:" in line


@pytest.mark.parametrize("arguments", [("explain", "rms_norm"), ("explain", "--communicator"), ("ops",)], ids=" ".join)
@pytest.mark.parametrize(("variable", "value"), [("SGLANG_FL_ENABLED", "0"), ("SGLANG_PLUGINS", "other")])
def test_what_keeps_sglang_from_using_the_answer_is_noted_beside_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    told = cli(*arguments, "--json")
    assert f"note: {variable} is " in told.stderr
    assert json.loads(told.stdout)


@pytest.mark.parametrize(
    ("variable", "value", "chosen", "reason"),
    [
        ("SGLANG_FL_PREFER", "reference", "reference.torch", "preferred by SGLANG_FL_PREFER"),
        (
            "SGLANG_FL_PER_OP",
            "rms_norm=reference|vendor",
            "reference.torch",
            "reference is number 1 in SGLANG_FL_PER_OP",
        ),
        ("SGLANG_FL_DENY_VENDORS", "acme", "reference.torch", "vendor acme is denied by SGLANG_FL_DENY_VENDORS"),
    ],
)
def test_setting_that_decides_is_named(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, chosen: str, reason: str
) -> None:
    install("acme-chip", ACME)
    monkeypatch.setenv(variable, value)

    printed = cli("explain", "rms_norm").stdout

    assert printed.startswith(f"rms_norm: {chosen} serves, by ")
    assert reason in printed


def test_layers_left_to_sglang_are_named_with_the_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_OOT_BLACKLIST", "GemmaRMSNorm")

    layers = json.loads(cli("explain", "gemma_rms_norm", "--json").stdout)["layers"]

    assert layers == {"GemmaRMSNorm": "oot_blacklist (SGLANG_FL_OOT_BLACKLIST)", "Gemma3RMSNorm": None}


def test_op_that_nothing_may_serve_is_explained_without_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")
    monkeypatch.setenv("SGLANG_FL_PREFER", "vendor")

    result = cli("explain", "rms_norm")

    assert result.exit_code == 0
    assert result.stdout.startswith("rms_norm: nothing serves, by prefer vendor from SGLANG_FL_PREFER")
    assert "strict (SGLANG_FL_STRICT)" in result.stdout


def test_quarantines_of_a_trace_are_shown_for_their_op_alone(cli: Cli, trace: Path) -> None:
    silu, norm = (
        json.loads(cli("explain", op, "--trace", trace, "--json").stdout) for op in ("silu_and_mul", "rms_norm")
    )

    (quarantine,) = silu["quarantines"]
    assert (quarantine["implementation"], quarantine["dtype"], quarantine["device"]) == (
        *("flagos.bad", "torch.float32"),
        "cpu",
    )
    assert quarantine["reason"] == "RuntimeError: illegal instruction"
    assert len(quarantine["processes"]) == 1
    assert norm["quarantines"] == []
    assert "RuntimeError: illegal instruction" in cli("explain", "silu_and_mul", "--trace", trace).stdout


def test_unknown_op_is_an_error_with_the_nearest_name(cli: Cli) -> None:
    result = cli("explain", "rmsnorm")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'rms_norm'?" in result.stderr


def test_trace_that_is_missing_is_an_error(cli: Cli) -> None:
    result = cli("explain", "rms_norm", "--trace", "nowhere")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "nowhere" in result.stderr


def test_op_must_be_given_except_for_pytorchs_own(cli: Cli) -> None:
    assert cli("explain").exit_code == 2
    assert cli("explain", "--aten").exit_code == 0


def test_pytorchs_own_ops_are_shown_with_the_reason(cli: Cli, install: Install) -> None:
    install("acme-chip", WITH_ATEN_OPS)

    told = json.loads(cli("explain", "--aten", "--json").stdout)

    assert told["platform"] == "cpu"
    assert [row for row in told["aten"] if row["distribution"] == "acme-chip"] == [
        {
            "name": name,
            "by": by,
            "replaced": replaced,
            "reason": reason,
            "distribution": "acme-chip",
        }
        for name, by, replaced, reason in (
            ("add.Tensor", "acme.add", True, "acme_turbo is on"),
            ("add_.Tensor", "acme.add_", True, "acme_turbo is on"),
            ("mm", "acme.mm", False, "[b]wrong[/b] below 16 columns"),
        )
    ]
    printed = cli("explain", "--aten").stdout
    assert any(line.split()[:2] == ["mm", "no"] and "[b]wrong[/b]" in line for line in printed.splitlines())


@pytest.mark.parametrize(
    ("op", "names"), [("add", ["add.Tensor"]), ("aten::add_.Tensor", ["add_.Tensor"]), ("mm", ["mm"])]
)
def test_one_of_pytorchs_own_ops_is_shown_alone(cli: Cli, install: Install, op: str, names: list[str]) -> None:
    install("acme-chip", WITH_ATEN_OPS)
    told = json.loads(cli("explain", op, "--aten", "--json").stdout)
    assert [row["name"] for row in told["aten"]] == names


NAMING = """
    from sglang_fl import AtenOp, hookimpl

    class Op(AtenOp):
        def covered_by(self, name):
            return name == "plus" and self.name.startswith("add")

    @hookimpl
    def sglang_fl_aten_ops(platform, settings):
        return [Op(name=name, by="acme", replaced=True, reason="") for name in ("add.Tensor", "add_.Tensor", "mm")]
"""
"""A backend whose records tell which names cover them."""


def test_a_name_means_what_the_records_of_the_backend_say(cli: Cli, install: Install) -> None:
    install("acme-chip", NAMING)
    told = json.loads(cli("explain", "plus", "--aten", "--json").stdout)
    assert [row["name"] for row in told["aten"]] == ["add.Tensor", "add_.Tensor"]
    assert cli("explain", "mm", "--aten").exit_code == 1


@pytest.mark.parametrize("name", ["ad.Tensor", "aten::ad.Tensor", "torch.ops.aten.ad.Tensor", "torch.ad.Tensor"])
def test_an_op_that_no_backend_can_replace_is_an_error_with_the_nearest(cli: Cli, install: Install, name: str) -> None:
    install("acme-chip", WITH_ATEN_OPS)
    result = cli("explain", name, "--aten")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'add.Tensor'?" in result.stderr
    assert "explain --aten" in cli("explain", "zzz", "--aten").stderr


def test_what_a_backend_refuses_of_the_settings_is_the_error(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-chip", WITH_ATEN_OPS)
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")
    result = cli("explain", "--aten")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-4:] == ["error  acme", "asked  speed", "found  none", "to do  wait"]


def test_a_trace_has_no_say_in_pytorchs_own_ops(cli: Cli, trace: Path) -> None:
    assert cli("explain", "--aten", "--trace", trace).exit_code == 2
