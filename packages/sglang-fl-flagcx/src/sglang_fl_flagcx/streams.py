"""torch's streams as FlagCX's, through the library's device handle."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from sglang_fl_flagcx import abi
from sglang_fl_flagcx.abi import Result
from sglang_fl_flagcx.library import Library


class Streams:
    """FlagCX's handles of the streams that a communicator has run on, each made once.

    Args:
        library: whose handles they are.
        current: the native handle of torch's current stream, e.g. a ``cudaStream_t`` as a number.
    """

    def __init__(self, library: Library, current: Callable[[], int]) -> None:
        self._library = library
        self._native = current
        self._device = ctypes.POINTER(abi.DeviceHandle)()
        library.call("flagcxDeviceHandleInit", ctypes.byref(self._device))
        self._handles: dict[int, int] = {}

    def current(self) -> int:
        """FlagCX's handle of torch's current stream."""
        native = self._native()
        return self._handles.get(native) or self._make(native)

    def are_idle(self) -> bool:
        """Has all work on them been done?"""
        return all(self._ask("streamQuery", handle) == Result.flagcxSuccess for handle in self._handles.values())

    def set_device(self, index: int) -> None:
        """Makes a device current in the calling thread."""
        self._check("setDevice", self._ask("setDevice", index))

    def free(self) -> None:
        """Frees the handles, not torch's streams behind them, and the device handle."""
        while self._handles:
            _, handle = self._handles.popitem()
            self._check("streamFree", self._ask("streamFree", handle))
        self._library.call("flagcxDeviceHandleFree", self._device)

    def _make(self, native: int) -> int:
        handle = ctypes.c_void_p()
        self._check("streamCopy", self._ask("streamCopy", ctypes.byref(handle), native))
        assert handle.value is not None  # the call succeeded
        self._handles[native] = handle.value
        return handle.value

    def _ask(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._device.contents, name)(*arguments))

    def _check(self, name: str, result: int) -> None:
        if result != Result.flagcxSuccess:
            raise self._library.failure(name, result)


def native_stream(device: torch.device) -> Callable[[], int]:
    """Gives the native handle of torch's current stream on ``device`` when called."""
    current: Callable[[torch.device], Any] = torch.get_device_module(device.type).current_stream
    attribute = f"{device.type}_stream"  # torch.cuda.Stream.cuda_stream, torch_npu's npu_stream, ...
    return lambda: int(getattr(current(device), attribute))
