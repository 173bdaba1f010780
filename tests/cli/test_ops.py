from __future__ import annotations

import json
from typing import Any

import pytest

from sglang_fl.ops import CONTRACTS
from tests.cli.conftest import Cli, Install
from tests.cli.vendors import ACME


def implementations(cli: Cli) -> dict[str, list[dict[str, Any]]]:
    return {each["op"]: each["implementations"] for each in json.loads(cli("ops", "--json").stdout)["ops"]}


def test_every_op_is_listed_with_its_reference(cli: Cli) -> None:
    listed = implementations(cli)

    assert list(listed) == list(CONTRACTS)
    assert all("reference.torch" in [each["impl_id"] for each in listed[op]] for op in CONTRACTS)


def test_available_implementation_has_a_rank(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME)

    first = implementations(cli)["rms_norm"][0]

    assert (first["impl_id"], first["distribution"], first["unavailable"], first["rank"]) == (
        *("vendor.acme", "acme-chip"),
        *(None, 1),
    )


def test_unavailable_implementation_has_its_reason_as_the_vendor_wrote_it(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME)

    last = implementations(cli)["silu_and_mul"][-1]
    line = next(line for line in cli("ops").stdout.splitlines() if "silu_and_mul" in line and "vendor.acme" in line)

    assert (last["unavailable"], last["rank"]) == ("[b]acme.ko[/b] is not loaded :cry:", None)
    assert "no: [b]acme.ko[/b] is not loaded :cry:" in line


def test_available_implementation_may_be_rejected_by_a_setting(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-chip", ACME)
    monkeypatch.setenv("SGLANG_FL_DENY_VENDORS", "acme")

    last = implementations(cli)["rms_norm"][-1]

    assert (last["impl_id"], last["unavailable"], last["rank"]) == ("vendor.acme", None, None)
    assert last["reason"] == "vendor acme is denied by SGLANG_FL_DENY_VENDORS"


def test_bad_setting_is_one_message_on_stderr(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_DENY_VENDORS", "nobody")

    result = cli("ops")

    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["error", "asked", "found", "to"]
    assert "setting deny_vendors (SGLANG_FL_DENY_VENDORS)" in result.stderr
