from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_fl.errors import SettingsError
from sglang_fl.settings import Origin, Settings, early_settings, load_settings
from tests.core.settings.samples import (
    FILLED_LISTS,
    FLAGGEMS_SETTINGS,
    IN_YAML,
    LISTS,
    VARIABLES,
    as_text,
    load_yaml,
    meaning,
)

KINDS = ("environment", "yaml", "platform")
# Platform defaults come too late for these.
BEFORE_PLATFORM = {"platform", "disabled_plugins", "trace", "trace_dir"}

without_deadline = settings(deadline=None)
each_with_its_own_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def load_from(directory: Path, said: dict[str, dict[str, Any]]) -> Settings:
    """The settings when each kind of source says what ``said`` holds for it."""
    variables = {VARIABLES[key]: as_text(value) for key, value in said.get("environment", {}).items()}
    defaults = [("vendor-dist", said["platform"])] if "platform" in said else []
    return load_yaml(directory, said.get("yaml", {}), [], defaults, **variables)


def chain(origin: Origin | None) -> list[Origin]:
    return [] if origin is None else [origin, *chain(origin.over)]


@each_with_its_own_file
@given(data=st.data(), key=st.sampled_from(sorted(IN_YAML)))
def test_highest_source_that_sets_a_key_wins_and_its_origin_says_so(data: Any, key: str, tmp_path: Path) -> None:
    possible = KINDS[:2] if key in BEFORE_PLATFORM else KINDS
    said = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(possible, IN_YAML[key])))

    loaded = load_from(tmp_path, {kind: {key: value} for kind, value in said.items()})

    setting = [kind for kind in KINDS if kind in said]
    expected = meaning(key, said[setting[0]]) if setting else getattr(Settings(), key)
    assert getattr(loaded, key) == expected
    assert [origin.kind for origin in chain(loaded.origin(key))] == (setting or ["code"])


@each_with_its_own_file
@given(
    said=st.fixed_dictionaries(
        {},
        optional={
            kind: st.dictionaries(st.sampled_from(["oot_blacklist", "oot_whitelist"]), LISTS).filter(
                lambda lists: sum(map(bool, lists.values())) < 2
            )
            for kind in KINDS
        },
    )
)
def test_highest_source_with_a_list_puts_aside_the_list_that_it_excludes(
    said: dict[str, dict[str, list[str]]], tmp_path: Path
) -> None:
    loaded = load_from(tmp_path, said)

    assert not (loaded.oot_blacklist and loaded.oot_whitelist)
    mentioned = [said[kind] for kind in KINDS if said.get(kind)]
    for key in ("oot_blacklist", "oot_whitelist"):
        decides = next((lists for lists in mentioned if key in lists or any(lists.values())), {})
        assert getattr(loaded, key) == tuple(decides.get(key, ()))


@without_deadline
@given(value=FILLED_LISTS, lower=FILLED_LISTS)
def test_whitelist_of_the_environment_puts_aside_the_blacklist_of_a_platform(
    value: list[str], lower: list[str]
) -> None:
    loaded = load_settings(
        {"SGLANG_FL_OOT_WHITELIST": ",".join(value)}, defaults=[("ascend-dist", {"oot_blacklist": lower})]
    )

    assert loaded.oot_whitelist == tuple(value)
    assert loaded.oot_blacklist == ()
    assert str(loaded.origin("oot_blacklist")) == "SGLANG_FL_OOT_WHITELIST, over defaults of ascend-dist: oot_blacklist"


def test_whitelist_of_a_backend_goes_before_its_blacklist_in_yaml(tmp_path: Path) -> None:
    loaded = load_yaml(
        tmp_path, {"flagos_blacklist": ["mul"]}, FLAGGEMS_SETTINGS, SGLANG_FL_FLAGOS_WHITELIST="rms_norm,silu"
    )

    assert loaded.of_backends["flagos_whitelist"] == ("rms_norm", "silu")
    assert loaded.of_backends["flagos_blacklist"] == ()
    assert loaded.origin("flagos_blacklist").detail == "SGLANG_FL_FLAGOS_WHITELIST"


def test_list_that_nobody_sets_is_at_its_default_whatever_excludes_it() -> None:
    assert str(load_settings({"SGLANG_FL_OOT_WHITELIST": "RMSNorm"}).origin("oot_blacklist")) == "default"


def test_lone_comma_clears_the_list_of_a_lower_source(tmp_path: Path) -> None:
    loaded = load_yaml(tmp_path, "oot_blacklist: [RMSNorm]", SGLANG_FL_OOT_BLACKLIST=",")

    assert loaded.oot_blacklist == ()
    assert loaded.origin("oot_blacklist").kind == "environment"


def test_higher_source_replaces_a_mapping_whole(tmp_path: Path) -> None:
    loaded = load_yaml(tmp_path, "op_backends: {rms_norm: [vendor]}", SGLANG_FL_PER_OP="silu_and_mul=reference")

    assert loaded.op_backends == {"silu_and_mul": ("reference",)}


def test_tilde_is_the_home_directory_wherever_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("trace_dir: ~/traces")

    loaded = load_settings({"SGLANG_FL_CONFIG": "~/mine.yaml", "SGLANG_FL_DISPATCH_LOG": "~/bound"}, [], [])

    assert (loaded.trace_dir, loaded.dispatch_log) == (tmp_path / "traces", tmp_path / "bound")


def test_home_directory_of_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"trace_dir.*~nobody-of-that-name"):
        load_settings({"SGLANG_FL_TRACE_DIR": "~nobody-of-that-name/traces"}, [], [])


def test_origin_of_each_kind_reads_well(tmp_path: Path) -> None:
    loaded = load_yaml(
        tmp_path,
        "prefer: vendor",
        FLAGGEMS_SETTINGS,
        [("sglang-fl-cuda", {"prefer": "flagos", "strict": True})],
        SGLANG_FL_PREFER="reference",
    )

    path = tmp_path / "my.yaml"
    assert str(loaded.origin("prefer")) == (
        f"SGLANG_FL_PREFER, over {path}: prefer, over defaults of sglang-fl-cuda: prefer"
    )
    assert str(loaded.origin("strict")) == "defaults of sglang-fl-cuda: strict"
    assert str(loaded.origin("oot_enabled")) == "default"
    assert str(loaded.origin("use_flaggems")) == "default of sglang-fl-flaggems"


def test_settings_of_backends_are_read_like_those_of_core(tmp_path: Path) -> None:
    loaded = load_yaml(tmp_path, "flagos_blacklist: [mul, sub]", FLAGGEMS_SETTINGS, USE_FLAGGEMS="0")

    assert loaded.of_backends == {
        "use_flaggems": False,
        "flagos_blacklist": ("mul", "sub"),
        "flagos_whitelist": None,
    }


def test_setting_that_core_itself_declares_for_its_default_plugin_is_a_backends() -> None:
    declared = [("sglang-fl-core", FLAGGEMS_SETTINGS[0][1])]

    assert load_settings({}, declared).of_backends == {"use_flaggems": True}


def test_early_settings_leave_unknown_names_for_later(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("disabled_plugins: [flaggems]\nflagos_blacklist: [mul]")
    environ = {"SGLANG_FL_CONFIG": str(path), "USE_FLAGGEMS": "0", "SGLANG_FL_OF_A_VENDOR": "1"}

    assert early_settings(environ).disabled_plugins == ("flaggems",)
    with pytest.raises(SettingsError):
        load_settings(environ)


def test_early_settings_judge_the_values_of_core() -> None:
    with pytest.raises(SettingsError, match="SGLANG_FL_TRACE"):
        early_settings({"SGLANG_FL_TRACE": "everything"})


def test_disabling_the_plugin_helps_whatever_else_is_wrong() -> None:
    loaded = early_settings({"SGLANG_FL_ENABLED": "0", "SGLANG_FL_CONFIG": "/no/such.yaml", "SGLANG_FL_TRACE": "x"})

    assert loaded.enabled is False
    assert str(loaded.origin("enabled")) == "SGLANG_FL_ENABLED"


def test_early_and_final_settings_agree_where_nothing_is_left_for_later() -> None:
    environ = {"SGLANG_FL_PREFER": "vendor", "SGLANG_FL_TRACE": "calls"}

    assert early_settings(environ) == load_settings(environ)
