"""The backend's ops as tests call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from sglang_fl.records import Answer, Platform, always
from sglang_fl_cuda.hooks import sglang_fl_register_ops

_PLATFORM = Platform(name="any", device_type="cuda", is_available=always, in_tree=True)
_TARGETS = {
    impl.op: (str(impl.fn).split(":"), str(impl.accepts).split(":")) for impl in sglang_fl_register_ops(_PLATFORM)
}


class OnCuda(torch.Tensor):
    """A CPU tensor that says that it is on CUDA, for what asks that alone."""

    is_cuda = True


@dataclass(frozen=True)
class Backend:
    """The ops with the kernels of one device.

    Attributes:
        device: where to make tensors.
        modules: the package's modules, by name.
    """

    device: torch.device
    modules: Mapping[str, ModuleType]

    def accepts(self, op: str, *args: Any) -> Answer:
        """What the op's ``accepts`` says to ``args``, which count as CUDA's."""
        answer: Answer = self.asked(op)(*map(self._as_if_on_cuda, args))
        return answer

    def call(self, op: str, *args: Any) -> Any:
        """The op's answer to a call that it accepts."""
        assert self.accepts(op, *args) is True
        return self.fn(op)(*args)

    def fn(self, op: str) -> Any:
        """The op's function."""
        return self._load(_TARGETS[op][0])

    def asked(self, op: str) -> Any:
        """The op's ``accepts``."""
        return self._load(_TARGETS[op][1])

    def _load(self, target: list[str]) -> Any:
        module, name = target
        return getattr(self.modules[module.rpartition(".")[2]], name)

    def _as_if_on_cuda(self, value: Any) -> Any:
        is_claimed = isinstance(value, torch.Tensor) and self.device.type == "cpu"
        return value.as_subclass(OnCuda) if is_claimed else value

    def randn(self, *shape: int, dtype: torch.dtype = torch.bfloat16, size: float = 1.0) -> torch.Tensor:
        """Fresh random numbers, in memory as CUDA gives it: at a multiple of 512 bytes."""
        numbers = (torch.randn(shape) * size).to(dtype)
        memory = torch.empty(numbers.numel() + 512, dtype=dtype, device=self.device)
        start = -memory.data_ptr() % 512 // dtype.itemsize
        return memory[start : start + numbers.numel()].view(shape).copy_(numbers)
