"""``sglang-fl config``: every effective setting, and where it came from."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from sglang_fl.cli.loading import declared_settings, load_plugins, start
from sglang_fl.cli.output import AsJson, show, show_json, table
from sglang_fl.settings import Settings, json_schema, load_settings, sample_yaml


def config(
    as_json: AsJson = False,
    sample: Annotated[bool, typer.Option("--sample", help="Print a YAML file with every key, to edit.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the YAML file's JSON schema.")] = False,
) -> None:
    """Show every setting's effective value and where it came from."""
    if as_json + sample + schema > 1:
        raise typer.BadParameter("print one thing: choose among --json, --sample and --schema")
    if sample:
        typer.echo(sample_yaml(declared_settings(load_plugins())), nl=False)
    elif schema:
        show_json(json_schema(declared_settings(load_plugins())))
    elif as_json:
        show_json({"settings": [row._asdict() for row in _effective().explain()]})
    else:
        columns = ("key", "value", "origin", "help")
        rows = (row._replace(value=json.dumps(row.value, ensure_ascii=False)) for row in _effective().explain())
        show(table("Settings", columns, rows))


def _effective() -> Settings:
    plugins = load_plugins()
    settings = load_settings(os.environ, declared_settings(plugins))
    if any("sglang_fl_default_settings" in plugin.hooks for plugin in plugins):
        return start().settings
    return settings  # no platform has defaults, so there is no need to find out which it is: that takes seconds
