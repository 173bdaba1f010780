"""Faults that touch what is not theirs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .fault import fault, rms, rotate, silu

STAYS = "test_only_what_may_be_overwritten_is"


@fault("silu_and_mul", STAYS)
def takes_x_for_its_scratch_space(obj: Any, x: torch.Tensor) -> torch.Tensor:
    y = silu(x)
    x[..., : x.shape[-1] // 2] = y
    return y


@fault("rms_norm", STAYS)
def overwrites_what_its_record_does_not_declare(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    if residual is None:
        return rms(x, obj).to(x.dtype)
    residual.copy_(x.float() + residual.float())
    return rms(residual, obj).to(x.dtype), residual


@fault("rms_norm", STAYS, mutates=("x", "residual"))
def overwrites_x_without_a_residual(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    if residual is None:
        return x.copy_(rms(x, obj))
    residual.copy_(x.float() + residual.float())
    return x.copy_(rms(residual, obj)), residual


@fault("layer_norm", STAYS)
def scales_the_weight_in_place(obj: Any, x: torch.Tensor) -> torch.Tensor:
    weight = obj.weight.data.mul_(1.5).float() / 1.5 if obj.elementwise_affine else None
    bias = obj.bias.float() if obj.use_bias else None
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, obj.variance_epsilon).to(x.dtype)


@fault("rms_norm", "test_what_lies_beside_a_tensor_stays", mutates=("x", "residual"))
def writes_whole_blocks(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    if residual is None:
        return rms(x, obj).to(x.dtype)
    total = x.float() + residual.float()
    residual.as_strided((8,), (1,), residual.storage_offset() + residual.numel()).zero_()
    return rms(total, obj).to(x.dtype), residual.copy_(total)


@fault("rotary_embedding", "test_a_view_of_wider_heads_leaves_the_rest_of_them", mutates=("query", "key"))
def turns_whole_heads(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):  # type: ignore[no-untyped-def]
    answers = [None if x is None else rotate(x, cos, sin, position_ids, rotary_interleaved) for x in (query, key)]
    if inplace:
        for x in (query, key):
            if x is not None:
                x.as_strided((*x.shape[:-1], obj.head_size), x.stride(), x.storage_offset()).zero_()
    return tuple(answers)


@fault("rms_norm", "test_results_share_no_memory_with_what_stays")
def answers_its_input_when_there_is_nothing_to_do(
    obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None
) -> Any:
    if residual is None:
        return rms(x, obj).to(x.dtype) if x.any() else x
    total = x.float() + residual.float()
    return rms(total, obj).to(x.dtype), total.to(x.dtype)


@fault("silu_and_mul", "test_every_element_of_the_result_is_written")
def leaves_the_last_column_as_memory_was(obj: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype)
    whole = y.shape[-1] // 2 * 2
    y[..., :whole] = silu(x)[..., :whole]
    return y


@fault("gemma_rms_norm", "test_strided_results_in_place_are_right", mutates=("x", "residual"))
def normalizes_a_copy_and_returns_x(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    def norm(total: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(total.float(), x.shape[-1:], 1 + obj.weight.float(), obj.variance_epsilon).to(x.dtype)

    if residual is None:
        return norm(x)
    residual.copy_(x.float() + residual.float())
    x.contiguous().copy_(norm(residual))
    return x, residual
