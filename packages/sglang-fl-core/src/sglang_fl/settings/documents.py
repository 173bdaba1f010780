"""The YAML file described: a sample to start from, and a JSON schema for editors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter

from sglang_fl.records import Setting
from sglang_fl.settings.forms import plain
from sglang_fl.settings.sources import BARRED
from sglang_fl.settings.vocabulary import Declared, Vocabulary, vocabulary

_HEAD = """\
# Settings of sglang-fl, each with its default. SGLANG_FL_CONFIG names this file; take the # off a key to set it.
# The environment variable in brackets goes before this file, and this file before the platform's defaults.
"""


def sample_yaml(declared: Iterable[tuple[str, Setting]] = ()) -> str:
    """A YAML file with every key commented out, so that it changes nothing until it is edited.

    ``# `` begins an explanation, a bare ``#`` a key with its default.
    """
    return "\n".join([_HEAD, *map(_sample, _in_yaml(declared).values())])


def json_schema(declared: Iterable[tuple[str, Setting]] = ()) -> dict[str, Any]:
    """The JSON schema of the YAML file. What it accepts, the reader reads."""
    known = _in_yaml(declared)
    schemas, definitions = TypeAdapter.json_schemas(
        [(key, "validation", entry.adapter) for key, entry in known.items()]
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of sglang-fl",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _property(schemas[key, "validation"], entry) for key, entry in known.items()},
        "allOf": [_exclusion(entry, known) for entry in known.values() if entry.setting.excludes in known],
        **definitions,
    }


def _in_yaml(declared: Iterable[tuple[str, Setting]]) -> Vocabulary:
    return {key: entry for key, entry in vocabulary(declared).items() if key not in BARRED["yaml"]}


def _sample(entry: Declared) -> str:
    setting = entry.setting
    lines = textwrap.wrap(f"{setting.help} [{setting.variable}]", width=116)
    default = yaml.safe_dump({setting.key: plain(entry.default)}, sort_keys=False)
    return textwrap.indent("\n".join(lines) + "\n", "# ") + textwrap.indent(default, "#")


def _property(schema: Mapping[str, Any], entry: Declared) -> dict[str, Any]:
    return {**schema, "description": entry.setting.help, "default": plain(entry.default)}


def _exclusion(entry: Declared, known: Vocabulary) -> dict[str, Any]:
    """Not both, unless one is at its default."""
    pair = (entry, known[str(entry.setting.excludes)])
    changed = {one.setting.key: {"not": {"const": plain(one.default)}} for one in pair}
    return {"not": {"required": list(changed), "properties": changed}}
