"""What sglang-fl asks of Opal."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from sglang_fl import BackendImplKind, Diagnosis, OpImpl, Platform, Setting, hookimpl

_OVERWRITES = {"silu_and_mul": (), "rms_norm": ("x", "residual"), "rotary_embedding": ("query", "key")}


@hookimpl
def sglang_fl_register_settings() -> list[Setting]:
    return [Setting(key="opal_threads", type=int, default=2, help="threads that a worker computes with")]


@hookimpl
def sglang_fl_register_platforms() -> list[Platform]:
    about = {
        "device_name": lambda index: "Opal",
        "total_memory": lambda index: 2**33,
        "used_memory": lambda index: 2**30,
    }
    return [Platform(name="opal", device_type="cpu", is_available=_no_real_chip, **about)]


@hookimpl
def sglang_fl_default_settings(platform: Platform) -> Mapping[str, Any]:
    return yaml.safe_load(files(__package__).joinpath("opal.yaml").read_text()) if platform.name == "opal" else {}


@hookimpl
def sglang_fl_register_ops(platform: Platform) -> list[OpImpl]:
    return [_impl(op) for op in _OVERWRITES] if platform.name == "opal" else []


@hookimpl
def sglang_fl_activate(platform: Platform, settings: Any) -> None:
    if platform.name == "opal":
        import torch

        torch.set_num_threads(settings.of_backends["opal_threads"])
        logging.getLogger(__name__).warning("opal computes with %d threads", torch.get_num_threads())


@hookimpl
def sglang_fl_diagnose() -> list[Diagnosis]:
    return [Diagnosis(subject="cores", ok=True, found=str(os.cpu_count()))]


def _impl(op: str) -> OpImpl:
    kind, fn, overwrites = BackendImplKind.VENDOR, f"sglang_opal.ops:{op}", _OVERWRITES[op]
    accepts = "sglang_opal.ops:fits" if op == "silu_and_mul" else None
    return OpImpl(op=op, impl_id="vendor.opal", vendor="opal", kind=kind, fn=fn, accepts=accepts, mutates=overwrites)


def _no_real_chip() -> bool | str:
    import torch

    real = torch.accelerator.current_accelerator(check_available=True)
    return True if real is None else f"SGLang would serve on the {real.type} device of this machine"
