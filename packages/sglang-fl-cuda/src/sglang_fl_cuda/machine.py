"""What NVIDIA's management library knows of the machine. It tells without starting CUDA, which no fork survives."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple


class Device(NamedTuple):
    """A device of the machine, whether or not this process may see it."""

    name: str
    capability: tuple[int, int]


class Machine(NamedTuple):
    """The driver, the newest CUDA that it runs, and its devices."""

    driver: str
    cuda: tuple[int, int]
    devices: tuple[Device, ...]


def machine() -> Machine | None:
    """The machine, or None where there is no such library, as with chips that are only compatible with CUDA."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return _read(nvml)
    except nvml.NVMLError:  # a container may be denied what the host is told
        return None
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ModuleType) -> Machine:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    capability = nvml.nvmlDeviceGetCudaComputeCapability
    version = nvml.nvmlSystemGetCudaDriverVersion()
    return Machine(
        driver=nvml.nvmlSystemGetDriverVersion(),
        cuda=(version // 1000, version % 1000 // 10),
        devices=tuple(Device(nvml.nvmlDeviceGetName(handle), capability(handle)) for handle in handles),
    )
