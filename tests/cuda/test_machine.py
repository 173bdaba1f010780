"""What is read from NVIDIA's management library, or from a stand-in of the same functions."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from sglang_fl_cuda.machine import Device, Machine, machine


class NVMLError(Exception):
    """The library's own exception."""


def library(**functions: object) -> ModuleType:
    """The library of a machine with an H100 and a T4, but for ``functions``."""
    devices = [("NVIDIA H100 80GB HBM3", (9, 0)), ("Tesla T4", (7, 5))]
    module = ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
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


def denied() -> None:
    raise NVMLError("Insufficient Permissions")


def test_the_driver_and_all_devices_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    devices = (Device("NVIDIA H100 80GB HBM3", (9, 0)), Device("Tesla T4", (7, 5)))
    assert machine() == Machine("580.65.06", (12, 8), devices)
    assert nvml.shut_down == 1


def test_without_the_library_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine() is None


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlSystemGetDriverVersion"])
def test_what_the_library_is_denied_is_nothing_to_tell(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library(**{function: denied})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert machine() is None
    assert nvml.shut_down == (function != "nvmlInit")


def test_the_installed_library_has_the_functions() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert [name for name in vars(library()) if name.startswith("nvml") and not hasattr(nvml, name)] == []
    assert issubclass(nvml.NVMLError, Exception)


@pytest.mark.gpu
def test_the_library_and_torch_agree() -> None:
    here = machine()
    if here is None:
        pytest.skip("NVIDIA's management library is not there")
    device = Device(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))
    assert device in here.devices
