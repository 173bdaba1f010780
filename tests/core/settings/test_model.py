from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_fl.settings import Origin, Settings, load_settings
from sglang_fl.settings.model import CORE_SETTINGS
from tests.core.settings.samples import FLAGGEMS_SETTINGS, IN_YAML, VARIABLES, as_text

without_deadline = settings(deadline=None)
ENVIRONMENTS = st.fixed_dictionaries(
    {}, optional={VARIABLES[key]: values.map(as_text) for key, values in IN_YAML.items() if key != "oot_whitelist"}
)


def test_every_setting_of_core_is_an_attribute_with_its_default() -> None:
    assert {one.key: one.default for one in CORE_SETTINGS} == {
        one.key: getattr(load_settings({}), one.key) for one in CORE_SETTINGS
    }


def test_nothing_set_is_settings_as_the_class_makes_them() -> None:
    assert load_settings({}) == Settings()


@without_deadline
@given(environ=ENVIRONMENTS)
def test_settings_can_be_hashed_and_pickled(environ: dict[str, str]) -> None:
    loaded = load_settings(environ, FLAGGEMS_SETTINGS)

    copy = pickle.loads(pickle.dumps(loaded))

    assert copy == loaded
    assert hash(copy) == hash(loaded)
    assert copy.explain() == loaded.explain()


def test_settings_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().strict = True  # type: ignore[misc]


def test_settings_of_equal_values_are_equal_wherever_they_came_from() -> None:
    by_user = load_settings({"SGLANG_FL_PREFER": "vendor"})
    by_platform = load_settings({}, (), [("dist", {"prefer": "vendor"})])

    assert by_user == by_platform
    assert by_user.origin("prefer") != by_platform.origin("prefer")


def test_origin_of_what_is_no_setting_is_an_error() -> None:
    with pytest.raises(KeyError):
        load_settings({}).origin("no_such")


def test_settings_that_code_makes_say_so() -> None:
    assert Settings(prefer="vendor").origin("prefer") == Origin("code", "default")


@without_deadline
@given(environ=ENVIRONMENTS)
def test_explanation_names_every_setting_once_in_the_types_of_json(environ: dict[str, str]) -> None:
    loaded = load_settings(environ, FLAGGEMS_SETTINGS)

    rows = loaded.explain()

    assert [row.key for row in rows] == [one.key for one in CORE_SETTINGS] + list(loaded.of_backends)
    assert json.loads(json.dumps(rows)) == [list(row) for row in rows]
    assert {row.key for row in rows if row.origin in environ} == {
        key for key, variable in VARIABLES.items() if variable in environ
    }


def test_explanation_shows_value_origin_and_meaning() -> None:
    loaded = load_settings({"SGLANG_FL_TRACE": "select,calls", "USE_FLAGGEMS": "0"}, FLAGGEMS_SETTINGS)

    rows = {row.key: row for row in loaded.explain()}

    assert rows["trace"][1:3] == (["calls", "select"], "SGLANG_FL_TRACE")
    assert rows["use_flaggems"] == ("use_flaggems", False, "USE_FLAGGEMS", "ATen ops")


def test_importing_settings_imports_nothing_heavy() -> None:
    probe = "import sys, sglang_fl.settings; print({'torch', 'rich', 'typer', 'sglang'} & sys.modules.keys())"

    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "set()"
