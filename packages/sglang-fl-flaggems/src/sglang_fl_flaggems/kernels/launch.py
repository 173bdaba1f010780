"""Launches Triton kernels at little cost to the host.

Triton inspects every argument of every launch to find what it compiled for such a call, which takes the host several
times as long as the launch. A caller that knows what of its calls can differ keeps what the first launch returns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, NamedTuple

import torch
import triton

VECTOR = 16
"""Bytes. Triton compiles two kernels: for tensors whose addresses are multiples of it, and for others."""

MANY = 1024
"""Of so many tokens the kernels are bound by memory, and of fewer by how long one program takes."""

Tensors = tuple[torch.Tensor | None, ...]

Relaunch = Callable[..., None]
"""``(x, y, *arguments)``: launches a compiled kernel again, on a grid of ``(x, y)``. A tensor goes by its address."""

device_function: Callable[[Callable[..., Any]], Any] = triton.jit
"""Makes a function for kernels to call."""


class Tile(NamedTuple):
    """What one program of a kernel works on.

    Attributes:
        rows: how many rows.
        block: how many columns of each: a power of two.
        warps: by how many warps: a power of two.
    """

    rows: int
    block: int
    warps: int


def power_of_2(n: int) -> int:
    """The least power of two that is not below ``n``. Triton's own is a hundred times slower."""
    return 1 << (n - 1).bit_length()


class Kernel:
    """A Triton kernel.

    Its parameters are tensors, then scalars, then constants. A scalar is a float, or an integer named ``tokens``:
    those alone change from call to call without anything being compiled.

    Args:
        fn: the kernel as Triton wants it written.
    """

    def __init__(self, fn: Callable[..., None]) -> None:
        self._jit = triton.jit(do_not_specialize=["tokens"])(fn)

    def __call__(
        self,
        grid: tuple[int, int],
        tensors: Tensors,
        scalars: tuple[float, ...],
        constants: tuple[Hashable, ...],
        warps: int,
    ) -> Relaunch | None:
        """Launches it on the device of the first tensor, on the current stream there.

        Returns what launches it again: for tensors on the same device and of the same dtypes, at multiples of VECTOR,
        for any scalars, and for the same constants and warps. None where there is no such thing.

        Raises ValueError for tensors on several devices, and from Triton for those on a CPU.
        """
        given = [tensor for tensor in tensors if tensor is not None]
        device, launch = given[0].device, (*grid, 1)
        elsewhere = next((tensor.device for tensor in given if tensor.device != device), None)
        if elsewhere is not None:
            msg = f"tensors on {device} and on {elsewhere}"
            raise ValueError(msg)
        arguments = (*tensors, *scalars, *constants)
        if device.type == "cpu":  # for the interpreter; without it, an error of Triton's
            self._jit[launch](*arguments, num_warps=warps)
            return None
        with torch.get_device_module(device).device(device):
            compiled = self._jit[launch](*arguments, num_warps=warps)
        if compiled is None or any(tensor.data_ptr() % VECTOR for tensor in given):  # none: interpreted
            return None
        return _relaunch(compiled, device.index, constants)


def _relaunch(compiled: Any, device: int, constants: tuple[Hashable, ...]) -> Relaunch | None:
    c_launch = _c_launch(compiled)
    if c_launch is None:
        return None
    launch, head, as_one = c_launch
    current_device, current_stream = torch._C._cuda_getDevice, torch._C._cuda_getCurrentRawStream
    hooks = triton.knobs.runtime
    entering, leaving = hooks.launch_enter_hook, hooks.launch_exit_hook
    if not hasattr(entering, "calls") or not hasattr(leaving, "calls"):  # somebody has put a function in their place
        return None
    on_enter, on_exit = entering.calls, leaving.calls

    def relaunch(x: int, y: int, *arguments: Any) -> None:
        values = arguments + constants
        if current_device() != device:
            with torch.cuda.device(device):
                relaunch(x, y, *arguments)
        elif on_enter or on_exit or hooks.launch_enter_hook is not entering or hooks.launch_exit_hook is not leaving:
            compiled[x, y, 1](*values)  # somebody listens: a profiler
        else:
            launch(x, y, 1, current_stream(device), *head, *((values,) if as_one else values))

    return relaunch


class _CLaunch(NamedTuple):
    """Triton's function in C that launches a kernel.

    Attributes:
        function: called with the grid, the stream, ``head``, and the kernel's arguments.
        head: what is the same for every launch of a kernel.
        as_one: the arguments go as one tuple.
    """

    function: Callable[..., None]
    head: tuple[Any, ...]
    as_one: bool


def _c_launch(compiled: Any) -> _CLaunch | None:
    """As ``CudaLauncher.__call__`` in the releases of Triton that are known; None in others, and for other devices."""
    series = ".".join(triton.__version__.split(".")[:2])
    if series not in ("3.6", "3.7", "3.8") or _backend() != "cuda":
        return None
    run = compiled.run
    if run.global_scratch_size or run.profile_scratch_size or getattr(run, "gsan_enabled", False):
        return None
    flags = (compiled.function, run.launch_cooperative_grid, run.launch_pdl)
    if series == "3.6":
        return _CLaunch(run.launch, (*flags, None, None, compiled.packed_metadata, None, None, None), as_one=False)
    # metadata of the kernel; of the launch, two hooks and two scratch buffers: none
    head = (*flags, compiled.packed_metadata, *[None] * 5, run.arg_annotations, run.kernel_signature)
    return _CLaunch(run.launch, head, as_one=True)


@cache
def _backend() -> str:
    return str(triton.runtime.driver.active.get_current_target().backend)
