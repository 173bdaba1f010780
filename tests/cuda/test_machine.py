"""What is read from NVIDIA's management library, or from a stand-in of the same functions."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from sglang_fl_cuda.machine import Device, Machine, machine


class NVMLError(Exception):
    """The library's own exception."""

    def __init__(self, value: int, text: str = "RM has detected an NVML/RM version mismatch.") -> None:
        super().__init__(text)
        self.value = value


def library(**functions: object) -> ModuleType:
    """The library of a machine with an H100 and a T4, but for ``functions``."""
    devices = [("NVIDIA H100 80GB HBM3", (9, 0)), ("Tesla T4", (7, 5))]
    module = ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        NVML_ERROR_DRIVER_NOT_LOADED=9,
        NVML_ERROR_LIBRARY_NOT_FOUND=12,
        shut_down=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: setattr(module, "shut_down", module.shut_down + 1),
        nvmlDeviceGetCount=lambda: len(devices),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlSystemGetCudaDriverVersion=lambda: 12080,
        nvmlDeviceGetName=lambda index: devices[index][0],
        nvmlDeviceGetCudaComputeCapability=lambda index: devices[index][1],
    )
    vars(module).update(functions)
    return module


def denied(*_: object) -> None:
    raise NVMLError(4, "Insufficient Permissions")


def lost(index: int) -> str:
    if index == 0:
        raise NVMLError(15, "GPU is lost")
    return "Tesla T4"


def test_the_driver_and_all_devices_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    devices = (Device("NVIDIA H100 80GB HBM3", (9, 0)), Device("Tesla T4", (7, 5)))
    assert machine() == Machine("580.65.06", (12, 8), devices)
    assert nvml.shut_down == 1


def test_without_the_library_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine() is None


@pytest.mark.parametrize("value", [9, 12])
def test_without_a_driver_there_is_nothing_to_tell(value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError(value)

    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlInit=absent))
    assert machine() is None


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlSystemGetDriverVersion"])
def test_what_the_library_is_denied_it_tells_in_its_own_words(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library(**{function: denied})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert machine() == "Insufficient Permissions"
    assert nvml.shut_down == (function != "nvmlInit")


def test_a_device_that_is_lost_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlDeviceGetName=lost))
    here = machine()
    assert isinstance(here, Machine)
    assert (here.devices, here.unread) == ((Device("Tesla T4", (7, 5)),), {0: "GPU is lost"})


def test_the_installed_library_has_the_functions() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert [name for name in vars(library()) if name.lower().startswith("nvml") and not hasattr(nvml, name)] == []
    assert (nvml.NVML_ERROR_DRIVER_NOT_LOADED, nvml.NVML_ERROR_LIBRARY_NOT_FOUND) == (9, 12)
    assert nvml.NVMLError(9).value == 9
    assert issubclass(nvml.NVMLError, Exception)


@pytest.mark.gpu
def test_the_library_and_torch_agree() -> None:
    here = machine()
    if not isinstance(here, Machine):
        pytest.skip(f"NVIDIA's management library tells nothing here: {here}")
    device = Device(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))
    assert device in here.devices
