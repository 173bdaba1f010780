"""The default plugin's hooks. Importing this module does not import torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from sglang_fl.hookspecs import hookimpl
from sglang_fl.records import (
    Answer,
    BackendImplKind,
    BackendPriority,
    Communicator,
    Diagnosis,
    OpImpl,
    Platform,
    always,
)
from sglang_fl.reference import cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPS = {
    "activation": ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"),
    "normalization": ("rms_norm", "gemma_rms_norm", "layer_norm"),
    "rotary": ("rotary_embedding",),
}

_CPU = Platform(
    name="cpu",
    device_type="cpu",
    is_available=always,
    priority=0,
    total_memory=cpu.total_memory,
    used_memory=cpu.used_memory,
    device_name=cpu.device_name,
)


@hookimpl
def sglang_fl_register_ops(platform: Platform) -> list[OpImpl]:
    """Every op, on every platform."""
    return [
        OpImpl(
            op=op,
            impl_id="reference.torch",
            kind=BackendImplKind.REFERENCE,
            fn=f"sglang_fl.reference.{module}:{op}",
        )
        for module, ops in _OPS.items()
        for op in ops
    ]


@hookimpl
def sglang_fl_register_communicators(platform: Platform) -> list[Communicator]:
    """``torch.distributed``, on every platform."""
    create = "sglang_fl.reference.communicator:create"
    return [Communicator(name="torch", create=create, priority=int(BackendPriority.REFERENCE))]


@hookimpl
def sglang_fl_register_platforms() -> list[Platform]:
    """The CPU, and the accelerator that the installed torch is built for, which SGLang serves by itself."""
    device_type = _accelerator()
    if device_type is None:
        return [_CPU]
    accelerator = Platform(
        name=device_type,
        device_type=device_type,
        is_available=_accelerator_is_available,
        in_tree=True,
        priority=int(BackendPriority.REFERENCE),
    )
    return [_CPU, accelerator]


@hookimpl
def sglang_fl_diagnose() -> Iterator[Diagnosis]:
    """The accelerator that torch finds."""
    if find_spec("torch") is not None:
        yield Diagnosis(subject="accelerator", ok=None, found=_accelerator_found())


def _accelerator() -> str | None:
    """torch's name for the accelerator that it is built for, whether or not this machine has one."""
    if find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415 - seconds, which whoever only reads settings need not wait

    device = torch.accelerator.current_accelerator()
    return None if device is None else str(device.type)


def _accelerator_is_available() -> Answer:
    # SGLang asks torch the same question during its import: no device is touched that would stay untouched.
    import torch  # noqa: PLC0415 - as above

    if torch.accelerator.is_available():
        return True
    return f"torch {torch.__version__} is built for {_accelerator()}, but finds no such device or driver"


def _accelerator_found() -> str:
    device_type = _accelerator()
    if device_type is None:
        return "none: this torch is built for the CPU alone"
    answer = _accelerator_is_available()
    return device_type if answer is True else f"none: {answer}"
