from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Install
from tests.cli.vendors import ACME, FAILING_LATE, UNABLE_TO_IMPORT
from tests.third_parties import third_party


def by_name(result: Any) -> dict[str, dict[str, Any]]:
    return {plugin["name"]: plugin for plugin in json.loads(result.stdout)["plugins"]}


def test_plugin_comes_with_its_distribution_version_hooks_and_offers(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME, version="3.1")

    acme = by_name(cli("plugins", "--json"))["acme_chip"]

    assert acme == {
        "name": "acme_chip",
        "distribution": "acme-chip",
        "version": "3.1",
        "state": "ok",
        "hooks": ["sglang_fl_diagnose", "sglang_fl_register_communicators", "sglang_fl_register_ops"],
        "offers": {"ops": ["rms_norm/vendor.acme", "silu_and_mul/vendor.acme"], "communicators": ["acmecl"]},
        "problem": None,
    }


def test_reference_plugin_is_listed_with_its_ops_and_platforms(cli: Cli) -> None:
    reference = by_name(cli("plugins", "--json"))["reference"]

    assert reference["distribution"] == "sglang-fl-core"
    assert len(reference["offers"]["ops"]) == 7
    assert "cpu" in reference["offers"]["platforms"]


def test_table_counts_ops_and_names_the_rest(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME, version="3.1")

    line = next(line for line in cli("plugins").stdout.splitlines() if "acme_chip" in line)

    assert "2 ops, communicators acmecl" in line
    assert "diagnose, register_communicators, register_ops" in line


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (UNABLE_TO_IMPORT, "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        (FAILING_LATE, "RuntimeError: libacme.so.1 is of another CUDA"),
    ],
)
def test_broken_plugin_is_left_out_with_the_reason_and_does_not_fail_the_command(
    cli: Cli, install: Install, source: str, found: str
) -> None:
    install("broken-chip", source)

    broken = by_name(cli("plugins", "--json"))["broken_chip"]
    table = cli("plugins")

    assert (broken["state"], broken["offers"]) == ("left out", {})
    assert broken["problem"]["found"] == found
    assert table.exit_code == 0
    assert found in table.stdout
    assert "SGLANG_FL_DISABLED_PLUGINS=broken_chip" in table.stdout


@pytest.mark.parametrize("source", [UNABLE_TO_IMPORT, FAILING_LATE])
def test_broken_plugin_under_strict_is_shown_and_is_the_error(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    install("broken-chip", source)
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")

    result = cli("plugins", "--json")

    assert result.exit_code == 1
    assert by_name(result)["broken_chip"]["state"] == "left out"
    assert by_name(result)["reference"]["offers"] == {"platforms": by_name(result)["reference"]["offers"]["platforms"]}
    assert json.loads(result.stdout)["error"] == by_name(result)["broken_chip"]["problem"]
    assert "plugin 'broken_chip' of broken-chip 1.0" in result.stderr


def test_disabled_plugin_is_listed_and_not_imported(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("broken-chip", UNABLE_TO_IMPORT, version="2.0")
    monkeypatch.setenv("SGLANG_FL_DISABLED_PLUGINS", "broken_chip")

    disabled = by_name(cli("plugins", "--json"))["broken_chip"]

    assert (disabled["state"], disabled["version"], disabled["problem"]) == ("disabled", "2.0", None)


def test_bad_settings_do_not_hide_the_plugins(cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme-chip", ACME)
    install("broken-chip", UNABLE_TO_IMPORT)
    monkeypatch.setenv("SGLANG_FL_PREFER", "vendr")
    monkeypatch.setenv("SGLANG_FL_DISABLED_PLUGINS", "broken_chip")

    result = cli("plugins")

    assert result.exit_code == 1
    assert "acme_chip" in result.stdout
    assert "disabled" in result.stdout
    assert "did you mean 'vendor'?" in result.stderr


def test_installed_script_prints_one_json_document_whatever_a_plugin_prints(tmp_path: Path) -> None:
    third_party(tmp_path, "broken-chip", UNABLE_TO_IMPORT)
    site = third_party(tmp_path, "acme-chip", ACME)
    script = Path(sys.executable).with_name("sglang-fl")

    result = subprocess.run(
        [script, "plugins", "--json"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )

    states = {name: plugin["state"] for name, plugin in by_name(result).items()}
    assert (states["acme_chip"], states["broken_chip"], states["reference"]) == ("ok", "left out", "ok")
    assert "acme greets" in result.stderr
