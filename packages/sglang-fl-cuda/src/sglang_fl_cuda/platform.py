"""The platform: SGLang's own, under a name that settings can tell from other CUDA devices' makers."""

from __future__ import annotations

from sglang_fl.records import Platform
from sglang_fl_cuda.availability import device_is_available


def total_memory(device_index: int = 0) -> int:
    """The device's memory, in bytes."""
    import torch  # noqa: PLC0415 - seconds, which a declaration must not cost

    return int(torch.cuda.get_device_properties(device_index).total_memory)


def used_memory(device_index: int = 0) -> int:
    """What of it is taken, by any process, in bytes."""
    import torch  # noqa: PLC0415 - as above

    free, total = torch.cuda.mem_get_info(device_index)
    return int(total - free)


def device_name(device_index: int = 0) -> str:
    """The device's name for people."""
    import torch  # noqa: PLC0415 - as above

    return str(torch.cuda.get_device_name(device_index))


NVIDIA = Platform(
    name="nvidia",
    device_type="cuda",
    is_available=device_is_available,
    in_tree=True,  # SGLang's graphs, pynccl, pinned memory and custom ops are for its own platform alone
    total_memory=total_memory,
    used_memory=used_memory,
    device_name=device_name,
    distributed_backend="nccl",
    capabilities=frozenset({"triton", "graph_capture", "pynccl", "hicache_kernels", "pinned_memory"}),
)
