"""A vendor's ``Platform`` record as the SRTPlatform that the installed SGLang wants.

Imported while ``sglang`` itself is being imported, so only ``sglang.srt.platforms`` may be imported from here.
"""

from __future__ import annotations

import inspect
import pkgutil
from types import ModuleType
from typing import Any, ClassVar

import torch
from sglang.srt.platforms.interface import PlatformEnum, SRTPlatform

from sglang_fl.adapter import seams
from sglang_fl.adapter.entry import stopping
from sglang_fl.errors import PlatformError
from sglang_fl.records import Platform
from sglang_fl.session import session


def selected_platform() -> str | None:
    """The name of :func:`__getattr__`'s class for SGLang to load, or None where SGLang's own platform stays."""
    record = session().platform
    if record.in_tree:
        _require_in_tree(record)
        return None
    _refuse_to_hide_an_accelerator(record)
    return f"{__name__}:SelectedPlatform"


def out_of_tree_class(record: Platform) -> type[OutOfTreePlatform]:
    """The platform class for ``record``, as the installed SGLang instantiates it."""
    by_hook = seams.at(seams.KV_POOLS_BY_HOOK, seams.sglang_version())
    base = OutOfTreePlatformWithPoolHooks if by_hook else OutOfTreePlatform
    names = {
        "record": record,
        "device_name": record.name,
        "device_type": record.device_type,
        "capabilities": _capabilities(record),
        "__doc__": f"SGLang's view of the platform {record.name!r}.",
    }
    return type("SelectedPlatform", (base,), names)


def __getattr__(name: str) -> Any:
    # SGLang loads its platform by name, and the class depends on the record that was chosen.
    if name != "SelectedPlatform":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return out_of_tree_class(session().platform)


class OutOfTreePlatform(SRTPlatform):  # type: ignore[misc]
    """The interface of 0.5.22 and later; earlier releases ask for some of it by other names, which are here too."""

    _enum = PlatformEnum.OOT
    record: ClassVar[Platform]

    # --- memory and device --------------------------------------------------------------------------------

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return int(_required(self.record, "total_memory")(device_id))

    def get_current_memory_usage(self, device: Any = None) -> float:
        index = device if isinstance(device, int) else getattr(device, "index", None)
        return float(_required(self.record, "used_memory")(index or 0))

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        total = self.get_device_total_memory(device_id)
        return total - int(self.get_current_memory_usage(device_id)), total

    def get_device(self, device_id: int | None = None) -> str:
        indexed = device_id is not None and self.record.device_type != "cpu"
        return f"{self.record.device_type}:{device_id}" if indexed else self.record.device_type

    def set_device(self, device: Any) -> None:
        self._module.set_device(device)

    def get_device_name(self, device_id: int = 0) -> str:
        return self.record.device_name(device_id) if self.record.device_name else self.record.name

    def get_device_uuid(self, device_id: int = 0) -> str:
        return f"{self.record.name}-{device_id}"

    def get_device_capability(self, device_id: int = 0) -> Any:
        return None

    def empty_cache(self) -> None:
        getattr(self._module, "empty_cache", lambda: None)()

    def synchronize(self) -> None:
        self._module.synchronize()

    def is_pin_memory_available(self, device: Any = None) -> bool:
        return "pinned_memory" in self.record.capabilities and str(device) != "cpu"

    def get_group_coordinator_device(self, local_rank: int) -> torch.device:
        return torch.device(self.get_device(local_rank))

    def get_torch_distributed_backend_str(self) -> str:
        return self.record.distributed_backend

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU" if self.record.device_type == "cpu" else "PrivateUse1"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return getattr(torch.profiler.ProfilerActivity, self.get_torch_profiler_activity_str())

    # --- serving ------------------------------------------------------------------------------------------

    @stopping
    def apply_server_args_defaults(self, server_args: Any) -> None:
        for name, value in self.record.server_args.items():
            default = _default_argument(name, self.record)  # first: it tells of a name that SGLang does not have
            if getattr(server_args, name) == default:
                setattr(server_args, name, value)

    def get_default_attention_backend(self) -> str:
        return self.record.attention_backend

    def get_graph_runner_cls(self) -> Any:
        return _load(self.record.graph_runner)

    def get_kv_pool_cls(self, *, kind: str) -> Any:
        return _load(self.record.kv_pools.get(kind))

    def get_paged_allocator_cls(self) -> Any:
        return _load(self.record.paged_allocator)

    def support_cuda_graph(self) -> bool:
        return "graph_capture" in self.record.capabilities

    @property
    def _module(self) -> ModuleType:
        named = self.record.device_module
        module: ModuleType = pkgutil.resolve_name(named) if named else torch.get_device_module(self.record.device_type)
        return module


class OutOfTreePlatformWithPoolHooks(OutOfTreePlatform):
    """The interface until 0.5.21: a platform names every cache class itself, SGLang's own where it has none."""

    def get_mha_kv_pool_cls(self) -> Any:
        return self._pool("mha", "MHATokenToKVPool")

    def get_mla_kv_pool_cls(self) -> Any:
        return self._pool("mla", "MLATokenToKVPool")

    def get_dsa_kv_pool_cls(self) -> Any:
        return self._pool("dsa", "DSATokenToKVPool")

    def get_paged_allocator_cls(self) -> Any:
        own = "sglang.srt.mem_cache.allocator.paged:PagedTokenToKVPoolAllocator"
        return _load(self.record.paged_allocator or own)

    def _pool(self, kind: str, own: str) -> Any:
        return _load(self.record.kv_pools.get(kind, f"sglang.srt.mem_cache.memory_pool:{own}"))


_CAPABILITY_FIELDS = {
    "triton": "supports_triton",
    "graph_capture": "graph_capture",
    "pynccl": "supports_pynccl",
    "hicache_kernels": "hicache_device_kernels",
}


def _capabilities(record: Platform) -> Any:
    try:
        from sglang.srt.platforms.interface import PlatformCapabilities  # noqa: PLC0415 - from 0.5.22
    except ImportError:
        return None
    claimed = {field: True for name, field in _CAPABILITY_FIELDS.items() if name in record.capabilities}
    return PlatformCapabilities(**{f: v for f, v in claimed.items() if f in PlatformCapabilities.__struct_fields__})


def _require_in_tree(record: Platform) -> None:
    if record.device_type.upper() not in PlatformEnum.__members__:
        raise PlatformError(
            f"platform {record.name!r}",
            asked=f"SGLang's own platform for {record.device_type} devices",
            found=f"SGLang {seams.sglang_version()} has none",
            do="install the chip vendor's backend, or choose another platform with SGLANG_FL_PLATFORM",
        )


def _refuse_to_hide_an_accelerator(record: Platform) -> None:
    present = torch.accelerator.current_accelerator(check_available=True)
    if record.device_type == "cpu" and present is not None:
        raise PlatformError(
            "sglang-fl-core",
            asked=f"platform {record.name!r}, which runs on the CPU",
            found=f"SGLang sees a {present.type} device in this machine and would use it all the same",
            do="hide the device from the process (for CUDA: CUDA_VISIBLE_DEVICES=''), or unset SGLANG_FL_PLATFORM",
        )


def _default_argument(name: str, record: Platform) -> Any:
    from sglang.srt.server_args import ServerArgs  # noqa: PLC0415 - not importable while sglang is being imported

    parameters = inspect.signature(ServerArgs).parameters
    if name not in parameters:
        raise PlatformError(
            f"platform {record.name!r}",
            asked=f"the server argument {name!r}",
            found=f"SGLang {seams.sglang_version()} has none of that name",
            do="mend the platform's server_args",
        )
    return parameters[name].default


def _load(target: str | None) -> Any:
    return None if target is None else pkgutil.resolve_name(target)


def _required(record: Platform, name: str) -> Any:
    function = getattr(record, name)
    if function is None:
        raise PlatformError(
            f"platform {record.name!r}",
            asked=f"its {name}",
            found="the record has none, and SGLang cannot do without",
            do=f"give the Platform record a {name} function",
        )
    return function
