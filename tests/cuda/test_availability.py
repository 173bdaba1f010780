"""Why the ops or the platform cannot serve here: the reason is exact."""

from __future__ import annotations

import pytest
import torch

from sglang_fl_cuda import availability
from sglang_fl_cuda.availability import device_is_available, kernels_are_available
from sglang_fl_cuda.machine import Device, Machine

H100 = Device("NVIDIA H100", (9, 0))
TURING = Device("Tesla T4", (7, 5))


class Host:
    """A machine, as far as availability asks: all is there until a test takes it away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.torch_is_built_for("13.0")
        self.torch_finds_a_device(True)
        self.has(Machine("580.65.06", (13, 0), (H100,)))
        self.modules = {"torch", "sgl_kernel"}
        monkeypatch.setattr(availability, "find_spec", lambda name: object() if name in self.modules else None)
        monkeypatch.setattr(torch, "__version__", "2.11.0")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def torch_is_built_for(self, cuda: str | None) -> None:
        self._patch.setattr(torch.version, "cuda", cuda)

    def torch_finds_a_device(self, found: bool) -> None:
        self._patch.setattr(torch.cuda, "is_available", lambda: found)

    def has(self, machine: Machine | str | None) -> None:
        self._patch.setattr(availability, "machine", lambda: machine)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_with_all_there_platform_and_ops_are_available(host: Host) -> None:
    assert device_is_available() is True
    assert kernels_are_available() is True


def test_without_torch(host: Host) -> None:
    host.modules.remove("torch")
    assert device_is_available() == kernels_are_available() == "torch is not installed"


def test_with_a_torch_that_is_not_for_cuda(host: Host) -> None:
    host.torch_is_built_for(None)
    assert device_is_available() == kernels_are_available() == "torch 2.11.0 is not built for CUDA"


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (None, "there is no NVIDIA driver"),
        ("Unknown Error", "NVIDIA's management library says: Unknown Error"),
        (Machine("580.65.06", (13, 0), ()), "driver 580.65.06 has none"),
        (
            Machine("535.54.03", (12, 2), (H100,)),
            "driver 535.54.03 runs CUDA up to 12.2, and this torch is built for CUDA 13.0",
        ),
        (
            Machine("580.65.06", (13, 0), (H100, H100)),
            "driver 580.65.06 has 2, but CUDA finds none in this process",
        ),
    ],
    ids=["no driver", "no answer", "no device", "old driver", "no CUDA"],
)
def test_without_a_device(host: Host, machine: Machine | str | None, reason: str) -> None:
    host.torch_finds_a_device(False)
    host.has(machine)
    assert device_is_available() == kernels_are_available() == f"torch 2.11.0 finds no device: {reason}"


def test_devices_that_are_hidden_are_told_with_what_hides_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    host.torch_finds_a_device(False)
    assert str(device_is_available()).endswith("in this process, where CUDA_VISIBLE_DEVICES is ''")


def test_without_sgl_kernel_the_platform_is_available_and_the_ops_are_not(host: Host) -> None:
    host.modules.remove("sgl_kernel")
    assert device_is_available() is True
    assert kernels_are_available() == "sgl_kernel, of the distribution sglang-kernel, is not installed"


def test_with_too_low_a_capability_the_platform_is_available_and_the_ops_are_not(host: Host) -> None:
    host.has(Machine("580.65.06", (13, 0), (TURING,)))
    assert device_is_available() is True
    assert kernels_are_available() == "sgl_kernel is built for compute capability 8.0 on, and here is 7.5"


def test_one_device_that_suffices_is_enough(host: Host) -> None:
    host.has(Machine("580.65.06", (13, 0), (TURING, H100)))
    assert kernels_are_available() is True


def test_a_chip_that_only_speaks_cuda_is_served(host: Host) -> None:
    host.has(None)
    assert device_is_available() is True
    assert kernels_are_available() is True


@pytest.mark.gpu
def test_a_gpu_is_seen() -> None:
    assert device_is_available() is True
    assert kernels_are_available() is True
