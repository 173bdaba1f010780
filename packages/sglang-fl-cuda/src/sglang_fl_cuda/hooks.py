"""The backend's hooks. Importing this module imports neither torch nor a kernel."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from sglang_fl import BackendImplKind, Diagnosis, OpImpl, Platform, hookimpl
from sglang_fl_cuda.availability import kernels_are_available
from sglang_fl_cuda.diagnosis import diagnose
from sglang_fl_cuda.platform import NVIDIA

_MODULES = {
    "silu_and_mul": "activation",
    "gelu_and_mul": "activation",
    "gelu_tanh_and_mul": "activation",
    "rms_norm": "normalization",
    "gemma_rms_norm": "normalization",
    "layer_norm": "layer_norm",
    "rotary_embedding": "rotary",
}

_OVERWRITTEN = {
    "rms_norm": ("x", "residual"),
    "gemma_rms_norm": ("x", "residual"),
    "rotary_embedding": ("query", "key"),
}


@hookimpl
def sglang_fl_register_platforms() -> list[Platform]:
    """NVIDIA, and every chip whose torch speaks CUDA."""
    return [NVIDIA]


@hookimpl
def sglang_fl_register_ops(platform: Platform) -> list[OpImpl]:
    """Every op, where SGLang itself runs CUDA: under our name for it, or core's."""
    return [_impl(op) for op in _MODULES] if _is_cuda(platform) else []


@hookimpl
def sglang_fl_default_settings(platform: Platform) -> Mapping[str, Any]:
    """What ``nvidia.yaml`` says, where SGLang itself runs CUDA."""
    if not _is_cuda(platform):
        return {}
    text = importlib.resources.files("sglang_fl_cuda").joinpath("nvidia.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings


@hookimpl
def sglang_fl_diagnose() -> Iterable[Diagnosis]:
    """The driver, torch's CUDA, the devices and sgl_kernel."""
    return diagnose()


def _is_cuda(platform: Platform) -> bool:
    return platform.device_type == NVIDIA.device_type and platform.in_tree


def _impl(op: str) -> OpImpl:
    module = f"sglang_fl_cuda.{_MODULES[op]}"
    return OpImpl(
        op=op,
        impl_id="vendor.cuda",
        kind=BackendImplKind.VENDOR,
        vendor="cuda",
        fn=f"{module}:{op}",
        accepts=f"{module}:accepts",
        is_available=kernels_are_available,
        mutates=_OVERWRITTEN.get(op, ()),
    )
