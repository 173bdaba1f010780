"""What the doctor is told: a note where there is no device, and a failure with a remedy where there is."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import pytest
import torch

from sglang_fl.records import Diagnosis
from sglang_fl_cuda import availability, diagnosis, kernels
from sglang_fl_cuda.diagnosis import diagnose
from sglang_fl_cuda.machine import Device, Machine

H100 = Device("NVIDIA H100", (9, 0))
NEW = Machine("580.65.06", (13, 0), (H100,))
GIB = 2**30


class Host:
    """A machine, as far as the doctor looks: an H100 and all that it needs, until a test takes it away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.versions = {"sglang-kernel": "0.4.5", "torch": "2.11.0+cu130"}
        self.modules = {"torch", "sgl_kernel"}
        self.has(NEW)
        self.torch(cuda="13.0", finds=True)
        self.kernels(None)
        self.devices = [SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=80 * GIB)]
        monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.devices))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: self.devices[index])
        monkeypatch.setattr(importlib.metadata, "version", self._version)
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch==2.11.0", "sglang-kernel==0.4.5"])
        for module in (availability, diagnosis):
            monkeypatch.setattr(module, "find_spec", lambda name: object() if name in self.modules else None)

    def has(self, machine: Machine | str | None) -> None:
        for module in (availability, diagnosis):
            self._patch.setattr(module, "machine", lambda: machine)

    def torch(self, *, cuda: str | None, finds: bool) -> None:
        self._patch.setattr(torch.version, "cuda", cuda)
        self._patch.setattr(torch.cuda, "is_available", lambda: finds)

    def kernels(self, error: Exception | None) -> None:
        def norms() -> None:
            if error is not None:
                raise error

        self._patch.setattr(kernels, "norms", norms)

    def _version(self, name: str) -> str:
        try:
            return self.versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def told() -> dict[str, Diagnosis]:
    lines = list(diagnose())
    by_subject = {line.subject: line for line in lines}
    assert len(by_subject) == len(lines)
    for line in lines:
        assert (line.ok is False) == bool(line.wanted)
        assert (line.ok is False) == bool(line.remedy)
    return by_subject


def test_with_all_there_every_line_is_good(host: Host) -> None:
    assert {subject: (line.ok, line.found) for subject, line in told().items()} == {
        "NVIDIA driver": (True, "580.65.06, CUDA up to 13.0"),
        "CUDA of torch": (True, "13.0"),
        "CUDA device 0": (True, "NVIDIA H100, compute capability 9.0, 80.0 GiB"),
        "sgl_kernel": (True, "0.4.5, loads"),
    }


def test_without_a_driver_all_are_notes(host: Host) -> None:
    host.has(None)
    host.torch(cuda="13.0", finds=False)
    assert {subject: (line.ok, line.found) for subject, line in told().items()} == {
        "NVIDIA driver": (None, "none that NVIDIA's management library finds"),
        "CUDA of torch": (None, "torch 2.11.0+cu130 finds no device: there is no NVIDIA driver"),
        "sgl_kernel": (None, "0.4.5, not tried: no device"),
    }


@pytest.mark.parametrize("finds", [True, False])
def test_a_driver_that_does_not_answer_is_a_failure_unless_torch_finds_its_devices(host: Host, finds: bool) -> None:
    host.has("RM has detected an NVML/RM version mismatch.")
    host.torch(cuda="13.0", finds=finds)
    lines = told()
    assert lines["NVIDIA driver"].ok is (None if finds else False)
    assert "version mismatch" in lines["NVIDIA driver"].found
    assert ("version mismatch" in lines["CUDA of torch"].found) is not finds


def test_a_device_that_is_lost_is_a_failure_beside_those_that_serve(host: Host) -> None:
    host.has(NEW._replace(unread={1: "GPU is lost"}))
    lines = told()
    assert lines["NVIDIA driver"].ok is True
    assert (lines["NVIDIA device 1"].ok, lines["NVIDIA device 1"].found) == (False, "GPU is lost")


def test_a_driver_that_has_lost_all_its_devices(host: Host) -> None:
    host.has(NEW._replace(devices=(), unread={0: "GPU is lost"}))
    host.torch(cuda="13.0", finds=False)
    line = told()["CUDA of torch"]
    assert line.ok is False
    assert line.found.endswith("driver 580.65.06 has none; device 0: GPU is lost")


def test_without_torch_and_kernels_all_are_notes(host: Host) -> None:
    host.has(None)
    host.modules.clear()
    host.versions.clear()
    assert {line.ok for line in told().values()} == {None}


def test_a_driver_too_old_for_torch(host: Host) -> None:
    host.has(Machine("535.54.03", (12, 2), (H100,)))
    host.torch(cuda="13.0", finds=False)
    lines = told()
    assert (lines["NVIDIA driver"].ok, lines["NVIDIA driver"].found) == (False, "535.54.03, CUDA up to 12.2")
    assert lines["NVIDIA driver"].wanted == "a driver for CUDA 13.0, which torch is built for"
    assert lines["CUDA of torch"].remedy == lines["NVIDIA driver"].remedy
    assert "newer driver" in lines["NVIDIA driver"].remedy


def test_a_torch_without_cuda_beside_a_device(host: Host) -> None:
    host.torch(cuda=None, finds=False)
    host.versions["torch"] = "2.11.0+cpu"
    line = told()["CUDA of torch"]
    assert (line.ok, line.found) == (False, "torch 2.11.0+cu130 is not built for CUDA")
    assert line.remedy == 'pip install --force-reinstall "torch==2.11.0"'


@pytest.mark.parametrize("visible", ["", "7"])
def test_a_device_that_is_hidden_from_the_process(host: Host, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    host.torch(cuda="13.0", finds=False)
    line = told()["CUDA of torch"]
    assert (line.ok, line.remedy) == (False, "unset CUDA_VISIBLE_DEVICES")
    assert line.found.endswith(f"CUDA finds none in this process, where CUDA_VISIBLE_DEVICES is {visible!r}")


def test_a_device_that_cuda_does_not_start_on_is_told_with_what_cuda_says(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError("Error 802: system not yet initialized\nmore")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "init", init)
    host.torch(cuda="13.0", finds=False)
    line = told()["CUDA of torch"]
    assert (line.ok, line.remedy) == (
        False,
        "mend what CUDA says: RuntimeError: Error 802: system not yet initialized",
    )
    assert "CUDA_VISIBLE_DEVICES" not in line.found


def test_a_device_of_too_low_a_capability(host: Host) -> None:
    host.devices.append(SimpleNamespace(name="Tesla T4", major=7, minor=5, total_memory=16 * GIB))
    lines = told()
    assert lines["CUDA device 0"].ok is True
    assert lines["CUDA device 1"].ok is False
    assert lines["CUDA device 1"].wanted == "compute capability 8.0, which sgl_kernel is built for"


def test_a_chip_that_only_speaks_cuda_is_not_judged_by_nvidias_wheel(host: Host) -> None:
    host.has(None)
    host.devices = [SimpleNamespace(name="Compatible Chip", major=7, minor=1, total_memory=32 * GIB)]
    assert told()["CUDA device 0"].ok is True


@pytest.mark.parametrize("required", [["sglang-kernel==0.4.5"], []])
def test_kernels_that_do_not_load(host: Host, required: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    host.kernels(ImportError("sglang 0.5.17 with sglang-kernel 0.4.10: ImportError: undefined symbol"))
    line, wanted = told()["sgl_kernel"], (required or ["sglang-kernel"])[0]
    assert (line.ok, line.found) == (False, "sglang 0.5.17 with sglang-kernel 0.4.10: ImportError: undefined symbol")
    assert line.wanted == f"{wanted}, which loads"
    assert line.remedy == f'pip install --force-reinstall "{wanted}"'


def test_kernels_that_are_not_installed(host: Host) -> None:
    host.modules.remove("sgl_kernel")
    line = told()["sgl_kernel"]
    assert (line.ok, line.found) == (False, "not installed")
    assert line.remedy == 'pip install --force-reinstall "sglang-kernel==0.4.5"'


def test_a_library_that_breaks_while_it_is_asked_is_a_line_and_no_exception(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise RuntimeError("CUDA unknown error\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", broken)
    lines = told()
    assert (lines["CUDA devices"].ok, lines["CUDA devices"].found) == (False, "RuntimeError: CUDA unknown error")
    assert lines["sgl_kernel"].ok is True


@pytest.mark.gpu
def test_a_gpu_is_fit_to_serve() -> None:
    assert {line.subject: line.found for line in diagnose() if line.ok is False} == {}
