from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from sglang_fl_ascend import doctor, hooks

Versions = Callable[..., None]
HEAD = "| npu-smi 24.1.rc3                 Version: 24.1.rc3                                  |"


@pytest.fixture
def an_npu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has one."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "davinci0").touch()
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path / "dev")


@pytest.fixture(autouse=True)
def _nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has none, and no CANN and no driver either."""
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path / "no dev")
    monkeypatch.setattr(doctor, "_ENVIRONMENTS", {})
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Versions:
    """Makes just these distributions installed."""

    def install(**installed: str) -> None:
        def version(name: str) -> str:
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(doctor.importlib.metadata, "version", version)

    return install


def a_cann(home: Path, version: str = "8.5.0") -> Path:
    info = home / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir(parents=True)
    info.write_text(f"package_name=Ascend-cann-toolkit\nversion={version}\ninnerversion=V100R001\n")
    return home


def an_npu_smi(tmp_path: Path, script: str) -> None:
    command = tmp_path / "bin" / "npu-smi"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_a_machine_without_npus_has_nothing_to_mend(versions: Versions) -> None:
    versions(torch="2.14.1")
    told = hooks.sglang_fl_diagnose()
    assert [line.subject for line in told] == ["torch_npu", "CANN", "Ascend driver"]
    assert {line.ok for line in told} == {None}
    assert {line.remedy for line in told} == {""}


@pytest.mark.usefixtures("an_npu")
def test_an_npu_without_its_software_has_three_things_to_mend(versions: Versions) -> None:
    versions(torch="2.14.1+cpu")
    told = hooks.sglang_fl_diagnose()
    assert {line.ok for line in told} == {False}
    assert all(line.found and line.wanted and line.remedy for line in told)
    assert told[0].remedy == 'pip install "torch_npu==2.14.*"'


@pytest.mark.parametrize(
    ("torch", "torch_npu", "fits"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.13.0+cpu", "2.13.0.post1", True),
        ("2.13.1", "2.13.0", True),
        ("2.14.1", "2.13.0", False),
        ("2.1.0", "2.13.0", False),
    ],
)
def test_torch_npu_must_be_of_torch_s_series(versions: Versions, torch: str, torch_npu: str, fits: bool) -> None:
    versions(torch=torch, torch_npu=torch_npu)
    told = doctor.torch_npu()
    series = ".".join(torch.split(".")[:2])
    assert (told.ok, told.remedy) == ((True, "") if fits else (False, f'pip install "torch_npu=={series}.*"'))


def test_without_torch_there_is_nothing_to_fit(versions: Versions) -> None:
    versions()
    assert (doctor.torch_npu().ok, doctor.torch_npu().found) == (None, "not installed, without torch")


def test_the_cann_that_the_environment_names_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_HOME_PATH", str(a_cann(tmp_path / "cann", "8.5.RC1")))
    assert (doctor.cann().ok, doctor.cann().found) == (True, f"8.5.RC1, in {tmp_path / 'cann'}")


def test_an_environment_that_names_no_cann_is_a_failure_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert (doctor.cann().ok, doctor.cann().found) == (False, f"ASCEND_HOME_PATH={tmp_path}")


@pytest.mark.usefixtures("an_npu")
def test_an_installed_cann_wants_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = {tmp_path / "cann": tmp_path / "cann" / "set_env.sh", a_cann(tmp_path / "latest"): tmp_path / "set_env.sh"}
    monkeypatch.setattr(doctor, "_ENVIRONMENTS", homes)
    assert (doctor.cann().ok, doctor.cann().remedy) == (False, f"source {tmp_path / 'set_env.sh'}")


def test_the_driver_says_its_version(tmp_path: Path) -> None:
    an_npu_smi(tmp_path, f"echo '{HEAD}'")
    assert (doctor.driver().ok, doctor.driver().found) == (True, "24.1.rc3")


@pytest.mark.usefixtures("an_npu")
def test_a_driver_that_fails_is_quoted(tmp_path: Path) -> None:
    an_npu_smi(tmp_path, "echo 'dcmi module initialize failed. ret is -8005'; exit 1")
    told = doctor.driver()
    assert told.ok is False
    assert told.found == "npu-smi info, exit status 1: dcmi module initialize failed. ret is -8005"


@pytest.mark.usefixtures("an_npu")
def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.2)
    an_npu_smi(tmp_path, "exec /bin/sleep 60")
    told = doctor.driver()
    assert (told.ok, told.found) == (False, "npu-smi info, without an answer in 0.2 s")
