"""What torch_npu says of the machine's NPUs. Nothing is imported before it is asked."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sglang_fl.records import Answer

_ABSENT = "torch_npu is not installed"


def is_available() -> Answer:
    """Is there an NPU that torch_npu can use? SGLang asks torch the same, so no device is touched that it would not."""
    if find_spec("torch_npu") is None:
        return _ABSENT
    npu = _torch_npu().npu
    return True if npu.is_available() else f"torch_npu finds {npu.device_count()} NPUs that it can use"


def has_operators(*names: str) -> Answer:
    """Has the installed torch_npu these operators? Not every release has each."""
    if find_spec("torch_npu") is None:
        return _ABSENT
    torch_npu = _torch_npu()
    missing = [name for name in names if not hasattr(torch_npu, name)]
    return f"torch_npu {torch_npu.__version__} has no {' and no '.join(missing)}" if missing else True


def total_memory(device_index: int) -> int:
    """A device's memory, in bytes."""
    return int(_torch_npu().npu.mem_get_info(device_index)[1])


def used_memory(device_index: int) -> int:
    """What of it is in use, by any process, in bytes."""
    free, total = _torch_npu().npu.mem_get_info(device_index)
    return int(total - free)


def device_name(device_index: int) -> str:
    """A device's name for people, e.g. ``"Ascend910B3"``."""
    return str(_torch_npu().npu.get_device_name(device_index))


def _torch_npu() -> Any:
    import torch_npu  # noqa: PLC0415 - seconds, and an error where CANN is missing

    return torch_npu
