"""Faults that a single call does not show."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F

from .fault import fault, silu

_draws = itertools.count()


@fault("silu_and_mul", "test_the_same_call_gives_the_same_bits")
def rounds_at_random(obj: Any, x: torch.Tensor) -> torch.Tensor:
    noise = torch.rand(x.shape[-1] // 2, generator=torch.Generator().manual_seed(next(_draws)))
    return (silu(x).float() * (1 + noise * 1e-4)).to(x.dtype)


_first_scale: dict[tuple[int, ...], torch.Tensor] = {}


@fault("rms_norm", "test_later_calls_are_as_right_as_the_first")
def keeps_the_scale_of_the_first_call(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    fresh = torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + obj.variance_epsilon)
    scale = _first_scale.setdefault(tuple(x.shape), fresh)
    y = (total * scale * obj.weight).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


_buffers: dict[Any, torch.Tensor] = {}


@fault("silu_and_mul", "test_results_of_earlier_calls_stay")
def answers_in_one_buffer(obj: Any, x: torch.Tensor) -> torch.Tensor:
    y = silu(x)
    return _buffers.setdefault((y.shape, y.dtype), torch.empty_like(y)).copy_(y)


@fault("silu_and_mul", "test_results_of_earlier_calls_stay")
def answers_in_a_buffer_of_the_layer(obj: Any, x: torch.Tensor) -> torch.Tensor:
    y = silu(x)
    return vars(obj).setdefault("buffer", torch.empty_like(y)).copy_(y)


@fault("silu_and_mul", "test_results_of_earlier_calls_stay")
def answers_as_the_layer_did_first(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return vars(obj).setdefault("answer", silu(x)).clone()


@fault("gemma_rms_norm", "test_a_changed_weight_counts")
def prepares_the_weight_once(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    if "prepared" not in vars(obj):
        obj.prepared = 1 + obj.weight.float()
    total = x.float() if residual is None else x.float() + residual.float()
    y = F.rms_norm(total, total.shape[-1:], obj.prepared, obj.variance_epsilon).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


@fault("silu_and_mul", "test_arguments_come_by_name_or_by_position")
def has_a_name_of_its_own_for_x(obj: Any, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the fault
    return silu(input)


@fault("silu_and_mul", "test_the_host_never_waits_for_the_device")
def looks_whether_x_is_zero(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(x) if x.any() else torch.zeros_like(x[..., ::2])


@fault(
    "silu_and_mul",
    "test_accepts_takes_some_calls",
    accepts=lambda obj, x: True if x.shape[-1] % 4096 == 0 else f"the width {x.shape[-1]} is no multiple of 4096",
)
def refuses_everything(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(x)
