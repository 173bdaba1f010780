"""Whether this machine has what the platform and the ops need, or the reason why not. Nothing here gives a process a
CUDA context; but children that it forks after torch was asked for a device cannot have one, either."""

from __future__ import annotations

import os
from importlib.util import find_spec

from sglang_fl.records import Answer
from sglang_fl_cuda.machine import Machine, machine

OLDEST_CAPABILITY = (8, 0)
"""The lowest compute capability that sgl_kernel's wheels are built for."""


def device_is_available() -> Answer:
    """Is torch built for CUDA, and does it find a device? The chip's name does not count: others speak CUDA, too."""
    if find_spec("torch") is None:
        return "torch is not installed"
    import torch  # noqa: PLC0415 - seconds, which whoever only reads settings need not wait

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not built for CUDA"
    if torch.cuda.is_available():
        return True
    return f"torch {torch.__version__} finds no device: {_why_no_device(torch.version.cuda)}"


def kernels_are_available() -> Answer:
    """Is there a device, and are the kernels for it installed? Whether they load shows when they are first bound."""
    answer = device_is_available()
    if answer is not True:
        return answer
    if find_spec("sgl_kernel") is None:
        return "sgl_kernel, of the distribution sglang-kernel, is not installed"
    here = machine()
    devices = here.devices if isinstance(here, Machine) else ()
    best = max((device.capability for device in devices), default=None)
    if best is not None and best < OLDEST_CAPABILITY:
        return f"sgl_kernel is built for compute capability {dotted(OLDEST_CAPABILITY)} on, and here is {dotted(best)}"
    return True


def runs(driver: tuple[int, int], toolkit: str) -> bool:
    """Does a driver for CUDA up to ``driver`` run what is built with ``toolkit``? Minor versions are compatible."""
    return driver[0] >= int(toolkit.partition(".")[0])


def dotted(version: tuple[int, int]) -> str:
    """``"8.0"`` for (8, 0)."""
    return f"{version[0]}.{version[1]}"


def _why_no_device(toolkit: str) -> str:
    here = machine()
    if here is None:
        return "there is no NVIDIA driver"
    if isinstance(here, str):
        return f"NVIDIA's management library says: {here}"
    if not here.devices:
        return f"driver {here.driver} has none{''.join(f'; device {n}: {why}' for n, why in here.unread.items())}"
    if not runs(here.cuda, toolkit):
        return f"driver {here.driver} runs CUDA up to {dotted(here.cuda)}, and this torch is built for CUDA {toolkit}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = "" if visible is None else f", where CUDA_VISIBLE_DEVICES is {visible!r}"
    return f"driver {here.driver} has {len(here.devices)}, but CUDA finds none in this process{where}"
