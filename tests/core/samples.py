"""Records, layers and kernels to test the core with, and what a subprocess needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import silu

from sglang_fl.dispatch import Dispatcher
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import BackendImplKind, OpImpl, Platform

LAYER = SimpleNamespace(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), variance_epsilon=1e-6)
"""A norm of width 4."""

CPU = Platform(name="cpu", device_type="cpu", is_available=lambda: True, in_tree=True)


def silu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """A kernel that works."""
    gate, up = x.chunk(2, dim=-1)
    return silu(gate) * up


def broken(obj: Any, x: torch.Tensor, *args: Any) -> Any:
    """A kernel that never works."""
    msg = "no kernel image"
    raise RuntimeError(msg)


class Spy:
    """A function that counts its calls."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.fn(*args, **kwargs)


def impl(impl_id: str = "vendor.acme", fn: Any = silu_and_mul, **fields: Any) -> OpImpl:
    """A vendor's record, of ``silu_and_mul`` where ``fields`` name no other op."""
    kind = fields.pop("kind", BackendImplKind.VENDOR)
    vendor = fields.pop("vendor", "acme" if kind is BackendImplKind.VENDOR else None)
    return OpImpl(**{"op": "silu_and_mul", "impl_id": impl_id, "fn": fn, **fields}, kind=kind, vendor=vendor)


def candidate(impl_id: str = "vendor.acme", fn: Any = silu_and_mul, **fields: Any) -> Candidate:
    """What a plugin of the distribution ``acme-chip`` offers; ``unavailable`` says why it cannot serve."""
    unavailable = fields.pop("unavailable", None)
    return Candidate(impl(impl_id, fn, **fields), "acme", "acme-chip", unavailable)


def reference(op: str = "silu_and_mul") -> Candidate:
    """The reference implementation of ``op``, the last in rank."""
    home = {"silu_and_mul": "activation", "rotary_embedding": "rotary"}.get(op, "normalization")
    record = OpImpl(
        op=op, impl_id="reference.torch", kind=BackendImplKind.REFERENCE, fn=f"sglang_fl.reference.{home}:{op}"
    )
    return Candidate(record, "reference", "sglang-fl-core")


def dispatcher(*candidates: Candidate, **policy: Any) -> Dispatcher:
    """Of these candidates, with the policy of these fields."""
    return Dispatcher(candidates, SelectionPolicy(**policy))


def vandal(error: BaseException | None = None) -> Callable[..., Any]:
    """A kernel that overwrites every tensor that it is given, and then raises."""

    def kernel(obj: Any, *tensors: Any, **kwargs: Any) -> Any:
        for tensor in (*tensors, *kwargs.values()):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                memory(tensor).fill_(float("nan"))
        raise error or RuntimeError("illegal instruction")

    return kernel


def memory(tensor: torch.Tensor) -> torch.Tensor:
    """What a kernel that forgets the strides writes to."""
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.detach().as_strided((span,), (1,))


def rows(*shape: int) -> torch.Tensor:
    """Random numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def for_all(*drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``hypothesis.given`` without limits of time: a busy machine is no failure."""
    unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    return lambda test: unhurried(given(*drawn)(test))


def run_python(program: str, *, site: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs ``program`` with none of the user's settings: on the CPU, and with the distributions in ``site``."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**_environ(), "SGLANG_FL_PLATFORM": "cpu", "PYTHONPATH": str(site or ""), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _environ() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_FL_")}
