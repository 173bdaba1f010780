"""Finds out whether code waits for the device, or reads a value from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class HostSync(AssertionError):
    """The host waited for a value."""


class _NoReads(TorchDispatchMode):  # type: ignore[misc]
    """Refuses the operators whose result depends on values: torch tags them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _READS_VALUES.intersection(func.tags) and not _is_gather(func, args):
            msg = f"{func} reads values of a tensor"
            raise HostSync(msg)
        with self:
            parts = func.decompose(*args, **kwargs)  # inference mode does not take composite operators apart by itself
        return func(*args, **kwargs) if parts is NotImplemented else parts


def _is_gather(func: Any, args: tuple[Any, ...]) -> bool:
    """Indexing by integers: only masks give results of a size that depends on values."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1])


@contextmanager
def no_host_sync(device: torch.device) -> Iterator[None]:
    """Within it, reading a value is an error; on a device with a debug mode for that, so is any other wait."""
    module = _debugged(device)
    with _NoReads():
        if module is None:
            yield
            return
        before = module.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the debug mode is a prototype
            module.set_sync_debug_mode("error")
        try:
            yield
        finally:
            module.set_sync_debug_mode(before)


def what_is_seen(device: torch.device) -> str:
    """How far :func:`no_host_sync` sees on ``device``, for the report."""
    if _debugged(device) is not None:
        return f"host syncs: every one is seen, by torch.{device.type}.set_sync_debug_mode"
    return (
        f"host syncs: torch operators that read values are seen, other waits are not: "
        f"torch.{device.type} has no set_sync_debug_mode"
    )


def _debugged(device: torch.device) -> Any:
    module = torch.get_device_module(device)
    return module if hasattr(module, "set_sync_debug_mode") else None
