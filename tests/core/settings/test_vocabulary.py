from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_fl.errors import SettingsError
from sglang_fl.records import Setting
from sglang_fl.settings import load_settings
from sglang_fl.settings.model import CORE_SETTINGS


def setting(**changes: Any) -> Setting:
    return Setting(**{"key": "my_key", "type": int, "default": 1, "help": "a number"} | changes)


def test_no_two_settings_of_core_share_a_key_or_a_variable() -> None:
    assert len({one.key for one in CORE_SETTINGS}) == len(CORE_SETTINGS)
    assert len({one.variable for one in CORE_SETTINGS}) == len(CORE_SETTINGS)


def test_setting_that_two_backends_declare_names_both() -> None:
    with pytest.raises(SettingsError, match=r"other-dist: asked for a setting my_key.*one-dist declares it already"):
        load_settings({}, [("one-dist", setting()), ("other-dist", setting())])


@pytest.mark.parametrize("key", [one.key for one in CORE_SETTINGS])
def test_setting_that_core_has_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=f"a setting {key} .*sglang-fl-core declares it already"):
        load_settings({}, [("one-dist", setting(key=key))])


def test_variable_that_is_taken_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"a setting SGLANG_FL_PER_OP .*sglang-fl-core declares it already"):
        load_settings({}, [("one-dist", setting(env="SGLANG_FL_PER_OP"))])


def test_default_that_is_not_of_its_type_names_the_backend() -> None:
    with pytest.raises(SettingsError, match=r"my_key \(its default in one-dist\); found 'x'"):
        load_settings({}, [("one-dist", setting(default="x"))])


@pytest.mark.parametrize("kind", [int, float, int | None])
def test_true_and_false_are_no_numbers(kind: Any, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("my_key: true")
    with pytest.raises(SettingsError, match=r"my_key .*found True. To do: write a number: a number"):
        load_settings({"SGLANG_FL_CONFIG": str(config)}, [("one-dist", setting(type=kind))])


@pytest.mark.parametrize("kind", [bool, bool | int])
def test_true_is_itself_where_it_may_be(kind: Any, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("my_key: true")
    loaded = load_settings({"SGLANG_FL_CONFIG": str(config)}, [("one-dist", setting(type=kind, default=False))])
    assert loaded.of_backends["my_key"] is True


@pytest.mark.parametrize("kind", [Callable, "NoSuchType", 3])
def test_type_that_yaml_cannot_hold_names_the_backend(kind: Any) -> None:
    with pytest.raises(SettingsError, match="that YAML has no such type") as caught:
        load_settings({}, [("one-dist", setting(type=kind))])
    assert caught.value.who == "one-dist"


def test_value_that_could_change_is_refused_as_default() -> None:
    with pytest.raises(SettingsError, match="declare an immutable type"):
        load_settings({}, [("one-dist", setting(type=list[str], default=[]))])


def test_value_that_could_change_is_refused_when_read() -> None:
    declared = [("one-dist", setting(type=list[str] | None, default=None))]

    with pytest.raises(SettingsError, match="declare an immutable type"):
        load_settings({"SGLANG_FL_MY_KEY": "a,b"}, declared)


def test_exclusion_of_an_unknown_key_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'oot_blacklist'"):
        load_settings({}, [("one-dist", setting(excludes="oot_blacklst"))])


@pytest.mark.parametrize(
    ("kind", "default", "text", "value"),
    [
        (int, 1, "12", 12),
        (float, 1.0, "0.5", 0.5),
        (bool, True, "off", False),
        (str, "", "Some Text", "Some Text"),
        (Path | None, None, "/a", Path("/a")),
        (tuple[int, ...], (), "1, 2", (1, 2)),
        (frozenset[str], frozenset(), "a,b", frozenset({"a", "b"})),
        (tuple[str, ...] | None, None, "a", ("a",)),
    ],
)
def test_variable_of_a_backend_is_read_by_its_type(kind: Any, default: Any, text: str, value: Any) -> None:
    loaded = load_settings({"SGLANG_FL_MY_KEY": text}, [("one-dist", setting(type=kind, default=default))])

    assert loaded.of_backends["my_key"] == value


def test_value_with_no_remedy_of_its_own_is_told_with_the_help() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_MY_KEY": "many"}, [("one-dist", setting())])
    assert caught.value.do == "my_key is a number"
