from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_fl.errors import SettingsError
from sglang_fl.records import Setting
from sglang_fl.settings import Settings, json_schema, load_settings, sample_yaml
from sglang_fl.settings.model import CORE_SETTINGS
from tests.core.settings.samples import FLAGGEMS_SETTINGS, IN_YAML, load_yaml

DECLARED = [
    [],
    FLAGGEMS_SETTINGS,
    [("other-dist", Setting(key="sizes", type=tuple[int, ...], default=(1, 2), help="sizes " * 40))],
]
SCHEMA = json_schema()
each_with_its_own_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def uncommented(sample: str) -> str:
    """The sample with every key taken out of its comment."""
    return re.sub(r"^#(?! )", "", sample, flags=re.MULTILINE)


def accepts(schema: dict[str, Any], content: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(content))


@pytest.mark.parametrize("declared", DECLARED)
def test_sample_as_it_is_sets_nothing(declared: list[tuple[str, Setting]]) -> None:
    assert yaml.safe_load(sample_yaml(declared)) is None


@pytest.mark.parametrize("declared", DECLARED)
def test_sample_taken_out_of_its_comments_sets_every_key_to_its_default(
    declared: list[tuple[str, Setting]], tmp_path: Path
) -> None:
    content = uncommented(sample_yaml(declared))

    loaded = load_yaml(tmp_path, content, declared)

    assert loaded == load_settings({"SGLANG_FL_CONFIG": str(loaded.config)}, declared)
    assert set(yaml.safe_load(content)) == {*IN_YAML, *(one.key for _, one in declared)}
    assert all(loaded.origin(key).kind == "yaml" for key in yaml.safe_load(content))


def test_sample_explains_every_key_and_names_its_variable() -> None:
    sample = " ".join(line.removeprefix("# ") for line in sample_yaml(FLAGGEMS_SETTINGS).splitlines())

    for one in (*CORE_SETTINGS, *(one for _, one in FLAGGEMS_SETTINGS)):
        if one.key not in ("enabled", "config"):
            assert f"{one.help} [{one.variable}]" in sample


@pytest.mark.parametrize("declared", DECLARED)
def test_schema_is_a_schema_and_accepts_the_sample(declared: list[tuple[str, Setting]]) -> None:
    schema = json_schema(declared)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert accepts(schema, yaml.safe_load(uncommented(sample_yaml(declared))))


def test_schema_knows_every_key_with_its_default_and_no_other() -> None:
    schema = json_schema()

    assert schema["additionalProperties"] is False
    assert not accepts(schema, {"no_such": 1})
    assert {key: one["default"] for key, one in schema["properties"].items()} == {
        row.key: row.value for row in Settings().explain() if row.key not in ("enabled", "config")
    }


@each_with_its_own_file
@given(content=st.fixed_dictionaries({}, optional=dict(IN_YAML)))
def test_what_the_schema_accepts_loads_and_reads_back_the_same(content: dict[str, Any], tmp_path: Path) -> None:
    both_lists = bool(content.get("oot_blacklist") and content.get("oot_whitelist"))
    assert accepts(SCHEMA, content) is not both_lists
    if both_lists:
        with pytest.raises(SettingsError):
            load_yaml(tmp_path, content)
        return

    loaded = load_yaml(tmp_path, content)

    shown = {row.key: row.value for row in loaded.explain() if row.key not in ("enabled", "config")}
    assert accepts(SCHEMA, shown)
    assert load_yaml(tmp_path, shown) == loaded


MALFORMED = [
    {"prefer": "vendr"},
    {"op_backends": {"rms_norm": ["vendr:x"]}},
    {"op_backends": {"rms_norm": "vendor:"}},
    {"op_backends": {"rms_norm": []}},
    {"op_backends": {"rms norm": ["vendor"]}},
    {"oot_blacklist": ["a b"]},
    {"oot_blacklist": None},
    {"oot_blacklist": ["A"], "oot_whitelist": ["B"]},
    {"trace": ["everything"]},
    {"strict": "maybe"},
    {"enabled": False},
]


@pytest.mark.parametrize("content", MALFORMED)
def test_what_the_reader_refuses_the_schema_refuses(content: dict[str, Any], tmp_path: Path) -> None:
    assert not accepts(SCHEMA, content)
    with pytest.raises(SettingsError):
        load_yaml(tmp_path, content)
