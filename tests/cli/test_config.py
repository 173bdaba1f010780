from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sglang_fl.settings import Settings, load_settings
from tests.cli.conftest import Cli, Install
from tests.cli.vendors import UNABLE_TO_IMPORT, WITH_SETTINGS


def settings(cli: Cli) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in json.loads(cli("config", "--json").stdout)["settings"]}


def test_every_setting_is_shown_with_its_value_and_origin(cli: Cli) -> None:
    shown = settings(cli)

    assert list(shown) == [row.key for row in Settings().explain()]
    assert {row["origin"] for row in shown.values()} == {"default"}
    assert (shown["prefer"]["value"], shown["oot_enabled"]["value"]) == (None, True)


def test_origin_names_the_source_and_what_it_overrides(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my.yaml").write_text("prefer: vendor\nstrict: true\n")
    monkeypatch.setenv("SGLANG_FL_CONFIG", "my.yaml")
    monkeypatch.setenv("SGLANG_FL_PREFER", "flagos")

    shown = settings(cli)
    line = next(line for line in cli("config").stdout.splitlines() if line.split()[:1] == ["prefer"])

    assert (shown["prefer"]["value"], shown["prefer"]["origin"]) == (
        "flagos",
        f"SGLANG_FL_PREFER, over {Path('my.yaml').absolute()}: prefer",
    )
    assert shown["strict"]["origin"] == f"{Path('my.yaml').absolute()}: strict"
    assert '"flagos"' in line
    assert shown["prefer"]["origin"] in line


def test_backend_adds_settings_and_platform_defaults(cli: Cli, install: Install) -> None:
    install("turbo-chip", WITH_SETTINGS)

    shown = settings(cli)

    assert shown["acme_turbo"] == {
        "key": "acme_turbo",
        "value": True,
        "origin": "defaults of turbo-chip: acme_turbo",
        "help": "spin faster",
    }
    assert (shown["prefer"]["value"], shown["prefer"]["origin"]) == ("vendor", "defaults of turbo-chip: prefer")


def test_sample_changes_nothing_until_it_is_edited(cli: Cli, install: Install, tmp_path: Path) -> None:
    install("turbo-chip", WITH_SETTINGS)
    sample = cli("config", "--sample").stdout
    path = tmp_path / "sample.yaml"
    path.write_text(sample)

    assert load_settings({"SGLANG_FL_CONFIG": str(path)}) == Settings(config=path)
    assert "#acme_turbo: false" in sample.splitlines()


def test_schema_accepts_what_is_valid_and_refuses_what_is_not(cli: Cli, install: Install) -> None:
    install("turbo-chip", WITH_SETTINGS)
    validator = jsonschema.Draft202012Validator(json.loads(cli("config", "--schema").stdout))

    assert validator.is_valid(yaml.safe_load("{prefer: vendor, acme_turbo: true}"))
    assert not validator.is_valid(yaml.safe_load("{prefr: vendor}"))
    assert not validator.is_valid(yaml.safe_load("{acme_turbo: 7}"))


@pytest.mark.parametrize("option", ["--sample", "--schema"])
def test_sample_and_schema_are_printed_where_the_settings_cannot_be_read(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("SGLANG_FL_CONFIG", "missing.yaml")

    result = cli("config", option)

    assert result.exit_code == 0
    assert "op_backends" in result.stdout


def test_settings_that_cannot_be_read_are_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_CONFIG", "missing.yaml")

    result = cli("config")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "the settings file" in result.stderr


def test_two_things_to_print_are_wrong_usage(cli: Cli) -> None:
    assert cli("config", "--sample", "--json").exit_code == 2


def test_config_and_help_are_shown_without_torch_or_sglang() -> None:
    program = """
import sys
from sglang_fl.cli import app

for arguments in ["--help"], ["config"], ["config", "--sample"]:
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
assert not {"torch", "sglang"} & set(sys.modules)
"""
    # Which platform's defaults hold takes torch to tell; these are our backends that have some.
    environ = {**os.environ, "SGLANG_FL_DISABLED_PLUGINS": "ascend,cuda"}
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environ)


def test_broken_plugin_does_not_hide_the_settings(cli: Cli, install: Install) -> None:
    install("broken-chip", UNABLE_TO_IMPORT)

    assert settings(cli)["prefer"]["value"] is None
