"""The suite raises no false alarm: what is right in another way than the reference passes all of L3."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sglang_fl.records import BackendImplKind, OpImpl
from sglang_fl.testing import suite
from sglang_fl.testing.under_test import DTYPES, OpUnderTest

from .faults.fault import rms, rotate


def norm_in_place(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """As fused kernels do: into x and residual."""
    if residual is None:
        return rms(x, obj).to(x.dtype)
    total = x.float() + residual.float()
    return x.copy_(rms(total, obj)), residual.copy_(total)


def norm_of_the_rounded_sum(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """As kernels do that read the sum again."""
    if residual is None:
        return rms(x, obj).to(x.dtype)
    residual.add_(x)
    return rms(residual, obj).to(x.dtype), residual


def norm_rounded_before_the_weight(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """As transformers does."""
    total = x.float() if residual is None else x.float() + residual.float()
    normed = total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + obj.variance_epsilon)
    y = (normed.to(x.dtype) * obj.weight).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


def turned_in_place(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    """Returns what it was given, where that may be overwritten."""

    def turned(x: torch.Tensor | None) -> torch.Tensor | None:
        if x is None:
            return None
        answer = rotate(x, cos, sin, position_ids, rotary_interleaved)
        return x.copy_(answer) if inplace else answer

    return turned(query), turned(key)


def silu_of_aligned_rows(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Takes contiguous rows of whole vectors, in halves, and answers in a strided view."""
    gate, up = x.float().chunk(2, dim=-1)
    wide = torch.empty((*gate.shape, 2), dtype=x.dtype, device=x.device)
    wide[..., 0] = F.silu(gate) * up
    return wide[..., 0]


def takes_aligned_rows(obj: Any, x: torch.Tensor) -> bool | str:
    if x.dtype is torch.float32:
        return "halves only"
    return x.is_contiguous() and x.shape[-1] % 32 == 0


def silu_in_half_precision(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Rounds after the SiLU, as unfused operators do."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


RIGHT: dict[Callable[..., Any], dict[str, Any]] = {
    norm_in_place: {"op": "rms_norm", "mutates": ("x", "residual")},
    norm_of_the_rounded_sum: {"op": "rms_norm", "mutates": ("residual",)},
    norm_rounded_before_the_weight: {"op": "rms_norm"},
    turned_in_place: {"op": "rotary_embedding", "mutates": ("query", "key")},
    silu_of_aligned_rows: {"op": "silu_and_mul", "accepts": takes_aligned_rows},
    silu_in_half_precision: {"op": "silu_and_mul"},
}

L3 = [name for name in suite.TESTS if "L3" in {mark.name for mark in getattr(suite, name).pytestmark}]
TAKEN_BY = {"op": None, "norm": {"rms_norm", "gemma_rms_norm", "layer_norm"}, "rotary": {"rotary_embedding"}}


def parameters(name: str) -> list[tuple[Any, ...]]:
    """What a test takes besides the op."""
    taken = list(inspect.signature(getattr(suite, name)).parameters)[1:]
    values = {"dtype": DTYPES, "interleaved": (False, True)}
    return [(value,) for value in values[taken[0]]] if taken else [()]


def is_for(name: str, op: str) -> bool:
    argument = next(iter(inspect.signature(getattr(suite, name)).parameters))
    ops = TAKEN_BY[argument]
    return ops is None or op in ops


@pytest.mark.parametrize("fn", RIGHT, ids=lambda fn: fn.__name__)
def test_what_is_right_passes(fn: Callable[..., Any]) -> None:
    record = OpImpl(impl_id="vendor.right", kind=BackendImplKind.VENDOR, vendor="right", fn=fn, **RIGHT[fn])
    passed = 0
    for name in L3:
        for values in parameters(name) if is_for(name, record.op) else ():
            try:
                getattr(suite, name)(OpUnderTest(record, examples=10), *values)
                passed += 1
            except pytest.skip.Exception as skipped:
                assert "accepts" in str(skipped) or "mutates=()" in str(skipped), (name, skipped)
    assert passed > 10
