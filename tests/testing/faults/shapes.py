"""Faults that take not every shape and layout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .fault import fault, rms, silu


@fault("silu_and_mul", "test_an_empty_input_gives_an_empty_result")
def answers_garbage_to_nothing(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(x) if x.numel() else x.new_empty((1, x.shape[-1] // 2))


@fault("rms_norm", "test_an_empty_input_gives_an_empty_result")
def cannot_flatten_nothing(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x if residual is None else x + residual
    y = rms(total, obj).to(x.dtype)
    y = y.view(x.shape[0] if x.dim() > 1 else 1, -1).view(x.shape)
    return y if residual is None else (y, total)


@fault("gelu_and_mul", "test_a_single_row")
def drops_the_dimension_of_one_row(obj: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    return (F.gelu(gate) * up).to(x.dtype).squeeze(0)


@fault("silu_and_mul", "test_three_dimensions")
def answers_in_two_dimensions(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(x) if x.dim() < 3 else silu(x).flatten(0, 1)


@fault("layer_norm", "test_odd_widths")
def leaves_the_tail_of_a_row(obj: Any, x: torch.Tensor) -> torch.Tensor:
    weight = obj.weight.float() if obj.elementwise_affine else None
    bias = obj.bias.float() if obj.use_bias else None
    y = F.layer_norm(x.float(), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)
    y[..., x.shape[-1] // 16 * 16 :] = 0
    return y


@fault("rms_norm", "test_huge_widths")
def sums_one_block_of_a_row(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    mean_square = total[..., :2048].pow(2).sum(-1, keepdim=True) / total.shape[-1]
    y = (total * torch.rsqrt(mean_square + obj.variance_epsilon) * obj.weight).to(x.dtype)
    return y if residual is None else (y, total.to(x.dtype))


@fault("gelu_tanh_and_mul", "test_many_rows")
def has_a_grid_of_1024_rows(obj: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    y = (F.gelu(gate, approximate="tanh") * up).to(x.dtype)
    y.view(-1, y.shape[-1])[1024:] = 0
    return y


@fault("rms_norm", "test_many_rows")
def has_a_grid_of_65535_blocks(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    total = x.float() if residual is None else x.float() + residual.float()
    y = rms(total, obj).to(x.dtype)
    y.view(-1, y.shape[-1])[65535:] = 0
    return y if residual is None else (y, total.to(x.dtype))


@fault("silu_and_mul", "test_strided_views")
def reads_beyond_each_row_of_a_view(obj: Any, x: torch.Tensor) -> torch.Tensor:
    return silu(x.as_strided(x.shape, torch.empty(x.shape).stride(), x.storage_offset()))
