from __future__ import annotations

import pytest

from sglang_fl import SglangFlError
from sglang_fl.errors import SettingsError
from sglang_fl_flaggems import doctor
from sglang_fl_flaggems.aten import layer
from sglang_fl_flaggems.aten.settings import SETTINGS, refuse_what_is_in_vain, suspended

from .conftest import Given
from .wheel import search_path

ON = {"USE_FLAGGEMS": "1"}
RECORDED = ON | {"SGLANG_FLAGGEMS_RECORD": "1"}


def test_the_names_are_those_of_the_predecessor_and_the_layer_is_off_by_default(given: Given) -> None:
    assert {setting.variable: setting.default for setting in SETTINGS} == {
        "USE_FLAGGEMS": False,
        "SGLANG_FL_FLAGOS_WHITELIST": (),
        "SGLANG_FL_FLAGOS_BLACKLIST": (),
        "SGLANG_FLAGGEMS_RECORD": False,
        "SGLANG_FLAGGEMS_LOG_PATH": None,
        "SGLANG_FLAGGEMS_LOG_ONCE": True,
    }
    assert given({}, "flagos_blacklist: [mul, sub]").of_backends["flagos_blacklist"] == ("mul", "sub")
    assert given({"SGLANG_FL_FLAGOS_WHITELIST": "rms_norm, silu"}).of_backends["flagos_whitelist"] == (
        "rms_norm",
        "silu",
    )


def test_the_two_lists_exclude_each_other_in_one_source_and_the_higher_source_wins(given: Given) -> None:
    with pytest.raises(SettingsError, match="exclude each other"):
        given({}, "{flagos_whitelist: [add], flagos_blacklist: [mul]}")
    both = given({"SGLANG_FL_FLAGOS_WHITELIST": "add"}, "flagos_blacklist: [mul]")
    assert both.of_backends["flagos_blacklist"] == ()


@pytest.mark.parametrize(
    ("variables", "yaml", "asked", "do"),
    [
        ({"SGLANG_FL_FLAGOS_WHITELIST": "add"}, "", r"flagos_whitelist \(SGLANG_FL_FLAGOS_WH", "USE_FLAGGEMS=1"),
        ({}, "flagos_blacklist: [add]", r"flagos_blacklist \(.*my.yaml: flagos_b", "USE_FLAGGEMS=1"),
        ({"SGLANG_FLAGGEMS_RECORD": "1"}, "", "flaggems_record", "USE_FLAGGEMS=1"),
        (ON | {"SGLANG_FLAGGEMS_LOG_PATH": "a.txt"}, "", "flaggems_log_path", "SGLANG_FLAGGEMS_RECORD=1"),
        (ON | {"SGLANG_FLAGGEMS_LOG_ONCE": "0"}, "", "flaggems_log_once", "SGLANG_FLAGGEMS_RECORD=1"),
    ],
)
def test_what_the_user_set_in_vain_is_an_error_that_names_the_switch(
    given: Given, variables: dict[str, str], yaml: str, asked: str, do: str
) -> None:
    with pytest.raises(SglangFlError, match=f"{asked}.* is off .default of sglang-fl-flaggems.*{do}"):
        refuse_what_is_in_vain(given(variables, yaml))


def test_what_the_user_switched_off_is_said_and_no_error(given: Given) -> None:
    settings = given({"USE_FLAGGEMS": "0"}, "{flagos_blacklist: [add], flaggems_record: true}")
    refuse_what_is_in_vain(settings)
    blacklist, record = suspended(settings)
    assert "my.yaml: flagos_blacklist) has no effect: use_flaggems is off (USE_FLAGGEMS" in blacklist
    assert record.startswith("flaggems_record")


@pytest.mark.parametrize(
    ("variables", "defaults"),
    [
        ({}, {}),
        ({"SGLANG_FLAGGEMS_RECORD": "0", "SGLANG_FLAGGEMS_LOG_ONCE": "1"}, {}),
        ({}, {"flagos_blacklist": ["add"]}),
        (RECORDED | {"SGLANG_FLAGGEMS_LOG_PATH": "a.txt", "SGLANG_FLAGGEMS_LOG_ONCE": "0"}, {}),
        ({"SGLANG_FL_FLAGOS_WHITELIST": "add"}, {"use_flaggems": True}),
    ],
)
def test_what_has_an_effect_or_is_nobodys_wish_passes(
    given: Given, variables: dict[str, str], defaults: dict[str, object]
) -> None:
    settings = given(variables, defaults=defaults)
    refuse_what_is_in_vain(settings)
    assert list(suspended(settings)) == []


def test_doctor_finds_what_is_set_in_vain(given: Given) -> None:
    (line,) = doctor.aten_settings(given({"SGLANG_FL_FLAGOS_WHITELIST": "add"}))
    assert line.ok is False
    assert "use_flaggems is off" in line.found
    assert line.remedy == "set USE_FLAGGEMS=1, or leave flagos_whitelist out"


def test_doctor_finds_a_name_of_no_op(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "installed_package", lambda: search_path() / "flag_gems")
    (line,) = doctor.aten_settings(given(ON | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Tensr"}))
    assert line.ok is False
    assert "'add.Tensor'" in f"{line.found} {line.remedy}"


@pytest.mark.parametrize("variables", [{}, ON, ON | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Tensor"}])
def test_doctor_has_nothing_to_say_of_settings_that_mean_something(
    given: Given, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "installed_package", lambda: search_path() / "flag_gems")
    assert list(doctor.aten_settings(given(variables))) == []
