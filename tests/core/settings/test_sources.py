from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sglang_fl.errors import SettingsError
from sglang_fl.settings import Settings, load_settings
from sglang_fl_flagcx import options as flagcx
from sglang_fl_flaggems.aten import settings as flaggems
from tests.core.settings.samples import FLAGGEMS_SETTINGS, load_yaml

BESIDE_CORE = {"sglang-fl-flaggems": flaggems.SETTINGS, "sglang-fl-flagcx": flagcx.SETTINGS}
KEYS = [(name, setting.key) for name, settings in BESIDE_CORE.items() for setting in settings]
FLAGGEMS_VARIABLES = [setting.variable for setting in flaggems.SETTINGS]


def test_variables_of_others_are_not_ours() -> None:
    others = {"FLAGCX_PATH": "/opt/flagcx", "SGLANG_FLASHINFER_WORKSPACE_SIZE": "1", "SGLANG_PLUGINS": "x", "HOME": "/"}

    assert load_settings(others) == Settings()


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_variable_is_unset(text: str) -> None:
    names = ["SGLANG_FL_PREFER", "SGLANG_FL_STRICT", "SGLANG_FL_CONFIG", "SGLANG_FL_NO_SUCH", *FLAGGEMS_VARIABLES]

    assert load_settings(dict.fromkeys(names, text)) == Settings()


def test_unknown_variable_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_PREFR": "vendor"})
    assert caught.value.asked == "SGLANG_FL_PREFR (the environment)"
    assert caught.value.do == "did you mean 'SGLANG_FL_PREFER'?"


def test_misspelt_variable_of_a_backend_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'SGLANG_FL_FLAGOS_WHITELIST'"):
        load_settings({"SGLANG_FL_FLAGOS_WHITLIST": "x"}, FLAGGEMS_SETTINGS)


def test_unknown_key_is_told_with_its_file_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, "prefer: vendor\nopbackends: {}")
    assert caught.value.asked == f"opbackends ({tmp_path / 'my.yaml'})"
    assert caught.value.do == "did you mean 'op_backends'?"


def test_key_that_is_no_text_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no setting of that name"):
        load_yaml(tmp_path, "on: 1")


@pytest.mark.parametrize("variable", FLAGGEMS_VARIABLES)
def test_variable_of_flaggems_without_it_is_refused_with_what_to_install(variable: str) -> None:
    with pytest.raises(SettingsError, match="install sglang-fl-flaggems") as caught:
        load_settings({variable: "1"})
    assert caught.value.asked == f"{variable} (the environment)"


@pytest.mark.parametrize(("backend", "key"), KEYS)
def test_key_of_a_backend_without_it_is_refused_with_what_to_install(backend: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"install {backend}"):
        load_yaml(tmp_path, {key: []})


def test_variable_that_begins_as_flaggems_do_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'SGLANG_FLAGGEMS_RECORD'"):
        load_settings({"SGLANG_FLAGGEMS_RECRD": "1"}, [("sglang-fl-flaggems", one) for one in flaggems.SETTINGS])


def test_variable_of_flaggems_written_as_a_key_is_not_blamed_on_an_absent_flaggems(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, "USE_FLAGGEMS: false", FLAGGEMS_SETTINGS)
    assert "not installed" not in str(caught.value)


def test_platform_default_for_an_absent_flaggems_is_left_out() -> None:
    content = {"prefer": "flagos", "flagos_blacklist": ["gather"]}

    alone = load_settings({}, (), [("ascend-dist", content)])
    together = load_settings({}, FLAGGEMS_SETTINGS, [("ascend-dist", content)])

    assert (alone.prefer, alone.of_backends) == ("flagos", {})
    assert together.of_backends["flagos_blacklist"] == ("gather",)


def test_two_backends_may_give_one_default_if_they_agree() -> None:
    defaults = [("one-dist", {"deny_vendors": ["a"]}), ("other-dist", {"deny_vendors": "a"})]

    assert load_settings({}, (), defaults).deny_vendors == ("a",)


def test_two_backends_that_differ_in_one_default_are_both_named() -> None:
    defaults = [("one-dist", {"prefer": "flagos"}), ("other-dist", {"prefer": "vendor"})]

    with pytest.raises(SettingsError, match=r"one-dist.*other-dist"):
        load_settings({"SGLANG_FL_PREFER": "reference"}, (), defaults)


def test_two_backends_whose_defaults_exclude_each_other_are_both_named() -> None:
    defaults = [("one-dist", {"oot_blacklist": ["A"]}), ("other-dist", {"oot_whitelist": ["B"]})]

    with pytest.raises(SettingsError, match=r"one-dist.*other-dist"):
        load_settings({}, (), defaults)


@pytest.mark.parametrize("content", [None, ["prefer"], "prefer"])
def test_platform_defaults_that_are_no_mapping_are_blamed_on_their_backend(content: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, (), [("odd-dist", content)])
    assert caught.value.who == "odd-dist"


def test_malformed_platform_default_names_its_backend() -> None:
    with pytest.raises(SettingsError, match=r"prefer \(defaults of odd-dist: prefer\)"):
        load_settings({}, (), [("odd-dist", {"prefer": "vendr"})])


def test_unknown_platform_default_names_its_backend() -> None:
    with pytest.raises(SettingsError, match=r"preferr \(defaults of odd-dist\).*did you mean 'prefer'"):
        load_settings({}, (), [("odd-dist", {"preferr": "vendor"})])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enabled", True),
        ("config", "x"),
        ("platform", "x"),
        ("disabled_plugins", []),
        ("trace", ["calls"]),
        ("trace_dir", "x"),
    ],
)
def test_platform_default_that_comes_too_late_is_refused(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"set SGLANG_FL_{key.upper()} in the environment"):
        load_settings({}, (), [("odd-dist", {key: value})])


@pytest.mark.parametrize(("key", "value"), [("enabled", False), ("config", "other.yaml")])
def test_key_that_only_the_environment_can_set_is_refused_in_yaml(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"set SGLANG_FL_{key.upper()} in the environment"):
        load_yaml(tmp_path, {key: value})


def test_both_lists_in_the_environment_are_refused() -> None:
    with pytest.raises(SettingsError, match="SGLANG_FL_OOT_BLACKLIST together with SGLANG_FL_OOT_WHITELIST"):
        load_settings({"SGLANG_FL_OOT_BLACKLIST": "A", "SGLANG_FL_OOT_WHITELIST": "B"})


def test_both_lists_in_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exclude each other"):
        load_yaml(tmp_path, "oot_whitelist: [A]\noot_blacklist: [B]")


def test_both_lists_of_a_backend_are_refused() -> None:
    variables = {"SGLANG_FL_FLAGOS_WHITELIST": "add", "SGLANG_FL_FLAGOS_BLACKLIST": "mul"}

    with pytest.raises(SettingsError, match="exclude each other"):
        load_settings(variables, FLAGGEMS_SETTINGS)


def test_relative_path_of_the_file_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "near.yaml").write_text("strict: true")
    monkeypatch.chdir(tmp_path)

    loaded = load_settings({"SGLANG_FL_CONFIG": "near.yaml"})

    assert loaded.strict is True
    assert loaded.config == Path("near.yaml")
    assert str(loaded.origin("strict")) == f"{tmp_path / 'near.yaml'}: strict"
