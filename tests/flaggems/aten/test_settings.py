from __future__ import annotations

from pathlib import Path

import pytest
import triton

from sglang_fl import Platform, SglangFlError
from sglang_fl.errors import SettingsError
from sglang_fl.settings import Settings
from sglang_fl_flaggems import availability
from sglang_fl_flaggems.aten import layer
from sglang_fl_flaggems.aten.settings import SETTINGS, refuse_what_is_in_vain, suspended

from .conftest import Given
from .wheel import search_path

ON = {"USE_FLAGGEMS": "1"}
UNKNOWN = ON | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Tensr"}
CUDA = Platform(name="cuda", device_type="cuda", is_available=lambda: True, in_tree=True)
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


@pytest.fixture
def released_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released FlagGems is installed, beside all that it needs, on a machine that has a device."""
    for module in (layer, availability):
        monkeypatch.setattr(module, "installed_package", lambda: search_path() / "flag_gems")
    monkeypatch.setattr(availability, "find_spec", lambda name: name)
    monkeypatch.setattr(availability, "own_kernels", lambda device_type: True)
    monkeypatch.setattr(triton, "__version__", "3.6.0")


def refused(settings: Settings) -> SglangFlError:
    """The error with which both a worker ends and a command that asks what would be replaced."""
    with pytest.raises(SglangFlError) as asked:
        layer.aten_ops(CUDA, settings)
    with pytest.raises(SglangFlError) as activated:
        layer.activate(CUDA, settings)
    assert str(asked.value) == str(activated.value)
    return asked.value


def test_what_is_set_in_vain_is_refused_before_a_worker_starts(given: Given) -> None:
    error = refused(given({"SGLANG_FL_FLAGOS_WHITELIST": "add"}))
    assert "use_flaggems is off" in error.found
    assert error.do == "set USE_FLAGGEMS=1, or leave flagos_whitelist out"


@pytest.mark.usefixtures("released_here")
def test_a_name_of_no_op_is_refused_before_a_worker_starts(given: Given) -> None:
    assert "'add.Tensor'" in str(refused(given(UNKNOWN)))


@pytest.mark.usefixtures("released_here")
@pytest.mark.parametrize(
    ("variables", "replaces"), [({}, False), (ON, True), (ON | {"SGLANG_FL_FLAGOS_WHITELIST": "add.Tensor"}, True)]
)
def test_settings_that_mean_something_tell_what_would_be_replaced(
    given: Given, variables: dict[str, str], replaces: bool
) -> None:
    rows = {row.name: row.replaced for row in layer.aten_ops(CUDA, given(variables))}
    assert rows["add.Tensor"] is replaces


@pytest.fixture(params=["absent", "too old", "without what it imports", "a triton that breaks it"])
def in_the_way(request: pytest.FixtureRequest, released_here: None, tmp_path: Path) -> tuple[str, str]:
    """FlagGems cannot serve here: what is found, and what is to be done."""
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    if request.param == "absent":
        monkeypatch.setattr(availability, "installed_package", lambda: None)
        return "flag-gems is not installed", "pip install flag-gems==5.0.2"
    if request.param == "too old":
        (tmp_path / "__init__.py").write_text("__version__ = '4.2.0'")  # its list of ops cannot be read, either
        for module in (layer, availability):
            monkeypatch.setattr(module, "installed_package", lambda: tmp_path)
        return "flag-gems 4.2.0 is older than 5.0.2", "pip install flag-gems==5.0.2"
    if request.param == "without what it imports":
        monkeypatch.setattr(availability, "find_spec", lambda name: None if name == "sqlalchemy" else name)
        return "sqlalchemy is not installed", "pip install sqlalchemy"
    monkeypatch.setattr(triton, "__version__", "3.8.0")
    return "here is triton 3.8.0", "take an SGLang that brings triton before 3.7"


def test_a_flaggems_that_cannot_serve_is_refused_with_the_reason_and_the_remedy(
    given: Given, in_the_way: tuple[str, str]
) -> None:
    found, do = in_the_way
    error = refused(given(ON))
    assert found in error.found
    assert error.do == f"leave use_flaggems off, or {do}"


@pytest.mark.usefixtures("released_here")
def test_a_machine_without_a_device_is_refused(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "own_kernels", lambda device_type: f"no {device_type} device is available")
    assert refused(given(ON)).found == "no cuda device is available"


def test_nothing_is_refused_while_the_layer_is_off(given: Given, in_the_way: tuple[str, str]) -> None:
    assert not any(row.replaced for row in layer.aten_ops(CUDA, given({})))
