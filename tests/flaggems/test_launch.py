from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from triton.backends.nvidia.driver import CudaLauncher

from sglang_fl_flaggems.kernels import launch
from sglang_fl_flaggems.kernels.activation import silu_and_mul
from sglang_fl_flaggems.kernels.launch import Relaunch
from sglang_fl_flaggems.kernels.rms_norm import _rms_norm

CONSTANTS = (64, "silu")
ARGUMENTS = (4096, None, 8192, 3, 1e-6)
DEVICE, STREAM = 0, 7


class Device:
    """The current device, and what Triton compiles for there."""

    current = DEVICE
    backend = "cuda"


class Compiled:
    """What Triton compiles, with Triton's own launcher around a function that only notes how it is called."""

    def __init__(self, **differing: Any) -> None:
        self.function, self.packed_metadata = 4242, (4, 1, 0)
        self.launched: list[tuple[Any, ...]] = []
        self.launched_by_triton: list[tuple[Any, ...]] = []
        self.run = object.__new__(CudaLauncher)
        facts = {"num_ctas": 1, "gsan_enabled": False, "arg_annotations": ["a"], "kernel_signature": b"s"}
        facts |= {"launch_cooperative_grid": False, "launch_pdl": True}
        facts |= dict.fromkeys(("global_scratch_size", "profile_scratch_size"), 0)
        facts |= dict.fromkeys(("global_scratch_align", "profile_scratch_align"), 1)
        vars(self.run).update(facts | differing, launch=lambda *args: self.launched.append(args))

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *args: self.launched_by_triton.append((grid, args))


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device that CUDA would have."""
    device = Device()
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: device.current, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: STREAM + index, raising=False)
    driver = SimpleNamespace(get_current_target=lambda: device)
    monkeypatch.setattr(triton.runtime, "driver", SimpleNamespace(active=driver))
    launch._backend.cache_clear()
    yield device
    launch._backend.cache_clear()


def relaunch_of(compiled: Compiled) -> Relaunch:
    relaunch = launch._relaunch(compiled, DEVICE, CONSTANTS)
    assert relaunch is not None
    return relaunch


def test_a_kernel_is_launched_again_just_as_tritons_launcher_does_it() -> None:
    compiled = Compiled()
    relaunch_of(compiled)(5, 2, *ARGUMENTS)
    values = (*ARGUMENTS, *CONSTANTS)
    compiled.run(5, 2, 1, STREAM, compiled.function, compiled.packed_metadata, None, None, None, *values)
    ours, tritons = compiled.launched
    assert ours == tritons


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
def test_who_listens_to_launches_hears_them(monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    compiled = Compiled()
    relaunch = relaunch_of(compiled)
    chain = getattr(triton.knobs.runtime, hook)
    monkeypatch.setattr(chain, "calls", chain.calls)
    chain.calls.append(print)
    relaunch(5, 2, *ARGUMENTS)
    chain.calls.remove(print)
    monkeypatch.setattr(triton.knobs.runtime, hook, print)
    relaunch(6, 2, *ARGUMENTS)
    monkeypatch.undo()
    assert [grid for grid, _ in compiled.launched_by_triton] == [(5, 2, 1), (6, 2, 1)]
    assert compiled.launched == []


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
@pytest.mark.parametrize("instead", [None, print])
def test_where_a_hook_has_been_replaced_triton_launches_itself(
    monkeypatch: pytest.MonkeyPatch, hook: str, instead: Any
) -> None:
    monkeypatch.setattr(triton.knobs.runtime, hook, instead)
    assert launch._relaunch(Compiled(), DEVICE, CONSTANTS) is None


def test_a_kernel_is_launched_on_its_own_device(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    class Entered:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            device.current = self.index

        def __exit__(self, *error: object) -> None:
            device.current = 1

    monkeypatch.setattr(torch.cuda, "device", Entered)
    compiled = Compiled()
    relaunch = relaunch_of(compiled)
    device.current = 1
    relaunch(5, 2, *ARGUMENTS)
    assert compiled.launched[0][:4] == (5, 2, 1, STREAM + DEVICE)
    assert device.current == 1


@pytest.mark.parametrize("version", ["3.5.1", "3.9.0", "4.0.0"])
def test_a_triton_that_is_not_known_launches_itself(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(triton, "__version__", version)
    assert launch._relaunch(Compiled(), DEVICE, CONSTANTS) is None


def test_triton_launches_itself_where_more_than_alignment_may_count(device: Device) -> None:
    device.backend = "hip"
    assert launch._relaunch(Compiled(), DEVICE, CONSTANTS) is None


@pytest.mark.parametrize("differing", [{"global_scratch_size": 8}, {"profile_scratch_size": 8}, {"gsan_enabled": True}])
def test_triton_launches_itself_what_needs_more_than_arguments(differing: dict[str, Any]) -> None:
    assert launch._relaunch(Compiled(**differing), DEVICE, CONSTANTS) is None


def test_tensors_on_several_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="tensors on cpu and on meta"):
        _rms_norm((1, 1), (torch.empty(4), None, torch.empty(4, device="meta")), (), (), 4)


def test_a_cpu_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real driver, or none
    with pytest.raises((ValueError, RuntimeError), match=r"cpu tensor|0 active drivers"):
        silu_and_mul(None, torch.ones(2, 16))
