"""What the backend offers, where, and with which settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sglang_fl import Communicator, Platform, SglangFlError
from sglang_fl.communication.selection import collect_communicators
from sglang_fl.errors import SettingsError
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.records import refusal
from sglang_fl.settings import Settings, load_settings
from sglang_fl_flagcx import communicator, hooks
from sglang_fl_flagcx.options import Options
from tests.flagcx.conftest import StandIn
from tests.flagcx.ranks import STREAM, at_every_rank

DISTRIBUTION = "sglang-fl-flagcx"


def platform(device_type: str) -> Platform:
    return Platform(name=device_type, device_type=device_type, is_available=lambda: True, in_tree=True)


def settings(**environ: object) -> Settings:
    """What core makes of these variables."""
    declared = [(DISTRIBUTION, setting) for setting in hooks.sglang_fl_register_settings()]
    return load_settings({name: str(value) for name, value in environ.items()}, declared)


def record(**environ: object) -> Communicator:
    (record,) = hooks.sglang_fl_register_communicators(platform("cuda"), settings(**environ))
    return record


@pytest.mark.parametrize("device_type", ["cuda", "npu", "musa", "mlu"])
def test_it_is_offered_on_the_devices_that_flagcx_serves(device_type: str) -> None:
    offered = hooks.sglang_fl_register_communicators(platform(device_type), settings())
    assert [record.name for record in offered] == ["flagcx"]


@pytest.mark.parametrize("device_type", ["cpu", "xpu", "mychip"])
def test_it_is_not_offered_on_other_devices(device_type: str) -> None:
    assert hooks.sglang_fl_register_communicators(platform(device_type), settings()) == []


def test_core_collects_it_with_the_user_s_settings(standin: StandIn) -> None:
    plugins = Plugins()
    plugins.add(Plugin("flagcx", DISTRIBUTION, "0"), hooks)
    (offer,) = collect_communicators(plugins, platform("cuda"), settings(FLAGCX_PATH=standin.file))
    assert plugins.problems == []
    assert offer.record.is_available() is True


def test_it_is_available_where_its_library_is(standin: StandIn, tmp_path: Path) -> None:
    assert record(FLAGCX_PATH=standin.file).is_available() is True
    reason = f"libflagcx.so: found nothing in FLAGCX_PATH, {tmp_path}/no, which does not exist"
    assert record(FLAGCX_PATH=tmp_path / "no").is_available() == reason


@pytest.mark.usefixtures("nowhere")
def test_without_a_library_the_reason_says_where_it_looked() -> None:
    reason = refusal(record().is_available())
    assert reason is not None
    assert "the package flagcx, which is not installed" in reason
    assert "the loader's path" in reason


def test_its_kernels_that_use_multicast_rule_it_out(standin: StandIn) -> None:
    reason = refusal(record(FLAGCX_PATH=standin.file, FLAGCX_CUSTOM_OP_ENABLE=1).is_available())
    assert reason == "FLAGCX_CUSTOM_OP_ENABLE is set, and sglang-fl does not use the device's multicast"


def test_create_starts_it_with_the_options(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communicator, "native_stream", lambda device: lambda: STREAM)
    monkeypatch.setenv("FLAGCX_USE_HETERO_COMM", "0")  # to be put back: create sets it for FlagCX
    create = record(FLAGCX_PATH=standin.file, FLAGCX_USE_HETERO_COMM=1).load()
    first, second = at_every_rank(2, create)
    assert standin.live()["comms"] == 2
    assert (first.graph_safe, second.graph_safe) == (False, False)
    first.destroy()
    second.destroy()


def test_settings_may_stand_in_yaml_too(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("flagcx_path: /opt/flagcx\nflagcx_use_tuner: true\n")
    options = Options.of(settings(SGLANG_FL_CONFIG=file).of_backends)
    assert options == Options(Path("/opt/flagcx"), {"FLAGCX_USE_TUNER": "1"}, None)


def test_a_mode_that_is_off_is_no_mode() -> None:
    assert Options.of(settings(FLAGCX_USE_TUNER=0).of_backends) == Options(None, {}, None)
    assert Options.of({}) == Options(None, {}, None)


def test_a_setting_that_means_nothing_is_an_error() -> None:
    with pytest.raises(SettingsError, match="FLAGCX_USE_TUNER"):
        settings(FLAGCX_USE_TUNER="perhaps")


class TestDiagnosis:
    def test_it_says_which_library_was_found(self, standin: StandIn) -> None:
        (told,) = hooks.sglang_fl_diagnose(settings(FLAGCX_PATH=standin.file.parent))
        assert (told.subject, told.ok, told.found) == ("FlagCX", True, f"1.2.3, {standin.file}")

    @pytest.mark.usefixtures("nowhere")
    def test_where_there_is_none_that_is_worth_a_note(self) -> None:
        (told,) = hooks.sglang_fl_diagnose(settings())
        assert told.ok is None
        assert "the loader's path" in told.found

    def test_where_the_user_names_one_that_is_not_there_that_is_a_failure(self, tmp_path: Path) -> None:
        (told,) = hooks.sglang_fl_diagnose(settings(FLAGCX_PATH=tmp_path))
        assert told.ok is False
        assert told.found == f"nothing in FLAGCX_PATH, {tmp_path}, which has no libflagcx.so"
        assert "FLAGCX_PATH" in told.remedy


def test_importing_the_hooks_imports_neither_torch_nor_the_binding() -> None:
    code = (
        "import sys, sglang_fl_flagcx.hooks; print([m for m in ('torch', 'sglang_fl_flagcx.abi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_flagcx_s_errors_are_sglang_fl_s() -> None:
    from sglang_fl_flagcx.errors import FlagCXError

    assert issubclass(FlagCXError, SglangFlError)
