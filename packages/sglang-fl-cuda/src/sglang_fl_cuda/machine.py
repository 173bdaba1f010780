"""What NVIDIA's management library knows of the machine. It tells without starting CUDA."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import NamedTuple


class Device(NamedTuple):
    """A device of the machine, whether or not this process may see it."""

    name: str
    capability: tuple[int, int]


class Machine(NamedTuple):
    """The driver, the newest CUDA that it runs, its devices, and why others could not be asked, by their index."""

    driver: str
    cuda: tuple[int, int]
    devices: tuple[Device, ...]
    unread: Mapping[int, str] = MappingProxyType({})


def machine() -> Machine | str | None:
    """The machine; why the library cannot tell; or None where there is neither it nor a driver, as with chips that are
    only compatible with CUDA."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        absent = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return None if error.value in absent else str(error)
    try:
        return _read(nvml)
    except nvml.NVMLError as error:  # a container may be denied what the host is told
        return str(error)
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ModuleType) -> Machine:
    version = nvml.nvmlSystemGetCudaDriverVersion()
    devices, unread = [], {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            devices.append(Device(nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetCudaComputeCapability(handle)))
        except nvml.NVMLError as error:  # one of eight may be lost
            unread[index] = str(error)
    return Machine(
        driver=nvml.nvmlSystemGetDriverVersion(),
        cuda=(version // 1000, version % 1000 // 10),
        devices=tuple(devices),
        unread=unread,
    )
