"""The backend's hooks. Importing this module imports neither torch nor torch_npu."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import Any

import yaml

from sglang_fl import BackendImplKind, Diagnosis, OpImpl, Platform, hookimpl
from sglang_fl_ascend import doctor, npu

ASCEND = Platform(
    name="ascend",
    device_type="npu",
    is_available=npu.is_available,
    in_tree=True,
    total_memory=npu.total_memory,
    used_memory=npu.used_memory,
    device_name=npu.device_name,
    distributed_backend="hccl",
    attention_backend="ascend",
)


def _op(home: str, op: str, *operators: str) -> OpImpl:
    """``op``, as the module ``home`` has it, by these operators of torch_npu."""
    return OpImpl(
        op=op,
        impl_id="vendor.ascend",
        kind=BackendImplKind.VENDOR,
        vendor="ascend",
        fn=f"sglang_fl_ascend.{home}:{op}",
        accepts=f"sglang_fl_ascend.limits:{op}",
        is_available=partial(npu.has_operators, *operators),
    )


_OPS = (
    _op("activation", "silu_and_mul", "npu_swiglu"),
    _op("activation", "gelu_and_mul", "npu_geglu"),
    _op("activation", "gelu_tanh_and_mul", "npu_geglu"),
    _op("normalization", "rms_norm", "npu_rms_norm", "npu_add_rms_norm"),
    _op("normalization", "gemma_rms_norm", "npu_gemma_rms_norm"),
    _op("normalization", "layer_norm"),
    _op("rotary", "rotary_embedding", "npu_mrope"),
)


@hookimpl
def sglang_fl_register_platforms() -> list[Platform]:
    """Ascend NPUs, which SGLang serves by a platform of its own."""
    return [ASCEND]


@hookimpl
def sglang_fl_default_settings(platform: Platform) -> dict[str, Any]:
    """What ``ascend.yaml`` says, on NPUs."""
    if platform.device_type != ASCEND.device_type:
        return {}
    defaults: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("ascend.yaml").read_bytes())
    return defaults


@hookimpl
def sglang_fl_register_ops(platform: Platform) -> tuple[OpImpl, ...]:
    """Every op, on NPUs."""
    return _OPS if platform.device_type == ASCEND.device_type else ()


@hookimpl
def sglang_fl_diagnose() -> tuple[Diagnosis, ...]:
    """torch_npu, CANN and the driver."""
    return doctor.torch_npu(), doctor.cann(), doctor.driver()
