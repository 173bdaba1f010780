"""Faults that give wrong numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .fault import fault, rms, rotate

VALUES = "test_values_are_those_of_float64"


@fault("silu_and_mul", VALUES, torch.bfloat16)
def swaps_gate_and_up(obj: Any, x: torch.Tensor) -> torch.Tensor:
    up, gate = x.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(x.dtype)


@fault("gelu_and_mul", VALUES, torch.float32)
def takes_the_tanh_for_the_exact_gelu(obj: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


@fault("gelu_tanh_and_mul", VALUES, torch.float32)
def takes_the_exact_gelu_for_the_tanh(obj: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate) * up


@fault("gemma_rms_norm", VALUES, torch.float16)
def forgets_gemmas_one(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x if residual is None else x.float() + residual.float()
    y = rms(total, obj).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


@fault("rms_norm", VALUES, torch.float32)
def norms_x_without_the_residual(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    y = rms(x, obj).to(x.dtype)
    return y if residual is None else (y, x + residual)


@fault("rms_norm", VALUES, torch.bfloat16)
def returns_the_residual_without_x(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    if residual is None:
        return rms(x, obj).to(x.dtype)
    return rms(x.float() + residual.float(), obj).to(x.dtype), residual.clone()


@fault("rms_norm", VALUES, torch.float32)
def returns_a_pair_without_a_residual(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x if residual is None else x + residual
    return rms(total, obj).to(x.dtype), total.clone()


@fault("rms_norm", VALUES, torch.float32)
def reads_what_the_contract_does_not_promise(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x if residual is None else x + residual
    y = rms(total, obj).view(-1, obj.hidden_size).view_as(x)
    return y if residual is None else (y, total)


@fault("layer_norm", VALUES, torch.float32)
def divides_the_variance_by_one_less(obj: Any, x: torch.Tensor) -> torch.Tensor:
    weight = obj.weight if obj.elementwise_affine else 1
    variance = x.var(-1, keepdim=True)
    y = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + obj.variance_epsilon) * weight
    return y + obj.bias if obj.use_bias else y


@fault("layer_norm", VALUES, torch.float32)
def takes_the_variance_in_one_pass(obj: Any, x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = (wide.pow(2).mean(-1, keepdim=True) - mean.pow(2)).clamp(min=0)
    y = (wide - mean) * torch.rsqrt(variance + obj.variance_epsilon)
    y = y * obj.weight if obj.elementwise_affine else y
    return (y + obj.bias if obj.use_bias else y).to(x.dtype)


@fault("layer_norm", VALUES, torch.float16)
def adds_a_bias_that_does_not_count(obj: Any, x: torch.Tensor) -> torch.Tensor:
    weight = obj.weight.float() if obj.elementwise_affine else None
    return F.layer_norm(x.float(), x.shape[-1:], weight, obj.bias.float(), obj.variance_epsilon).to(x.dtype)


@fault("rotary_embedding", VALUES, torch.float16)
def turns_the_other_way(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(None if x is None else rotate(x, cos, -sin, position_ids, rotary_interleaved) for x in (query, key))


@fault("rms_norm", "test_large_magnitudes_do_not_overflow")
def squares_in_float16(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x if residual is None else x + residual
    y = total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + obj.variance_epsilon) * obj.weight
    return y if residual is None else (y, total)


@fault("rotary_embedding", "test_large_magnitudes_do_not_overflow")
def scales_by_a_sum_that_overflows(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    return tuple(
        None if x is None else rotate(x + x + x, cos, sin, position_ids, rotary_interleaved) / 3 for x in (query, key)
    )


EPSILON = "test_epsilon_is_added_to_the_mean_square"


@fault("rms_norm", EPSILON)
def adds_epsilon_outside_the_root(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    y = (total / (total.pow(2).mean(-1, keepdim=True).sqrt() + obj.variance_epsilon) * obj.weight).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


@fault("gemma_rms_norm", EPSILON)
def has_an_epsilon_of_its_own(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    y = F.rms_norm(total, total.shape[-1:], 1 + obj.weight.float(), 1e-6).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


WIDE_WEIGHTS = "test_float32_weights_serve_half_inputs"


@fault("rms_norm", WIDE_WEIGHTS)
def answers_in_the_dtype_of_the_weight(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    unweighted = total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + obj.variance_epsilon)
    y = unweighted.to(x.dtype) * obj.weight
    return y if residual is None else (y, total.to(x.dtype))


@fault("layer_norm", WIDE_WEIGHTS)
def takes_the_bits_of_the_weight_for_those_of_x(obj: Any, x: torch.Tensor) -> torch.Tensor:
    weight, bias = (one.data.view(x.dtype)[: x.shape[-1]].float() for one in (obj.weight, obj.bias))
    weight = weight if obj.elementwise_affine else None
    bias = bias if obj.use_bias else None
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)
