"""The backend's hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sglang_fl import AtenOp, Diagnosis, OpImpl, Platform, Setting, hookimpl
from sglang_fl_flaggems import doctor, offers
from sglang_fl_flaggems.aten.settings import SETTINGS

if TYPE_CHECKING:
    from sglang_fl.settings import Settings


@hookimpl
def sglang_fl_register_settings() -> tuple[Setting, ...]:
    """Those of the ATen layer."""
    return SETTINGS


@hookimpl
def sglang_fl_register_ops(platform: Platform) -> list[OpImpl]:
    """Kernels of our own for every op, FlagGems' for what it does right, wherever there may be Triton."""
    if platform.device_type == "cpu":
        return []
    return [*offers.own_kernels(platform.device_type), *offers.flag_gems(platform.device_type)]


@hookimpl
def sglang_fl_activate(platform: Platform, settings: Settings) -> None:
    """FlagGems' functions in the place of PyTorch's own, where the settings turn that on."""
    from sglang_fl_flaggems.aten import layer  # noqa: PLC0415 - it imports torch

    layer.activate(platform, settings)


@hookimpl
def sglang_fl_aten_ops(platform: Platform, settings: Settings) -> Sequence[AtenOp]:
    """What FlagGems replaces, or would, and why not the rest."""
    from sglang_fl_flaggems.aten import layer  # noqa: PLC0415 - it imports torch

    return layer.aten_ops(platform, settings)


@hookimpl
def sglang_fl_diagnose() -> Iterator[Diagnosis]:
    """FlagGems, and what its numpy breaks."""
    yield from doctor.flag_gems()
    yield from doctor.numpy()
