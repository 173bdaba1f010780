"""FlagGems' ops, called as the contracts want. To import this is to import FlagGems: seconds, and CUDA is started.

Each is called by its name in ``flag_gems`` itself, where a vendor's variant takes the place of the general one.
"""

from __future__ import annotations

from typing import Any

import flag_gems
import torch

from sglang_fl_flaggems.kernels.rows import parameter, require_floats, require_shape, vector


def silu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` for x = (gate, up): ``[..., 2d]`` -> ``[..., d]``. RuntimeError for an odd last dimension."""
    return _of_halves(x, flag_gems.silu_and_mul)


def gelu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """As :func:`silu_and_mul`, with the exact GELU."""
    return _of_halves(x, flag_gems.gelu_and_mul, "none")


def gelu_tanh_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """As :func:`silu_and_mul`, with the tanh approximation of GELU."""
    return _of_halves(x, flag_gems.gelu_and_mul, "tanh")


def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """``x / rms(x) * obj.weight``: x ``[..., d]`` -> y; with a residual of x's shape, -> ``(y, x + residual)``.

    With a residual, what is contiguous is overwritten and returned; a copy is returned of the rest. ValueError for
    shapes that do not fit, TypeError for integers: FlagGems would write past the end.
    """
    require_floats(x)
    weight, epsilon, shape = vector(parameter(obj, "weight"), x), obj.variance_epsilon, [x.shape[-1]]
    if residual is None:
        return flag_gems.rms_norm(x, shape, weight, epsilon) if x.numel() else torch.empty_like(x)
    require_shape(residual, x)
    if not x.numel():
        return x, residual.to(x.dtype)
    if residual.dtype == x.dtype and residual.data_ptr() != x.data_ptr():
        return flag_gems.fused_add_rms_norm(x, residual, shape, weight, epsilon)
    wide = torch.promote_types(x.dtype, residual.dtype)
    y, total = flag_gems.fused_add_rms_norm(x.to(wide), residual.to(wide, copy=True), shape, weight, epsilon)
    return y.to(x.dtype), total.to(x.dtype)


def layer_norm(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """Layer norm over the last dimension: x ``[..., d]`` -> a new tensor of x's shape and dtype.

    A new number of tokens is tuned for by timing several variants: seconds, once on a machine. ValueError for shapes
    that do not fit, TypeError for integers.
    """
    require_floats(x)
    weight = vector(parameter(obj, "weight"), x) if obj.elementwise_affine else None
    bias = vector(parameter(obj, "bias"), x) if obj.use_bias else None
    if not x.numel():
        return torch.empty_like(x)
    y: torch.Tensor = flag_gems.layer_norm(x, [x.shape[-1]], weight, bias, obj.variance_epsilon)[0]
    return y


def rotary_embedding(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rotates query ``[T, H, R]`` and key ``[T, K, R]`` (or None) by their positions.

    cos and sin ``[max_position, R / 2]``, in any floating dtype; position_ids ``[T]``. Returns new tensors, whatever
    ``inplace`` allows. AssertionError for shapes that do not fit.
    """
    tokens, _, width = query.shape
    if not tokens:
        return query, key
    some_key = query.new_empty((tokens, 1, width)) if key is None else key
    rotated = flag_gems.apply_rotary_pos_emb(
        query, some_key, cos, sin, position_ids, rotary_interleaved=rotary_interleaved, inplace=False
    )
    return rotated[0], None if key is None else rotated[1]


def _of_halves(x: torch.Tensor, fn: Any, *options: str) -> torch.Tensor:
    d = x.shape[-1] // 2
    rows = x if x.dim() == 2 or not x.numel() else x.reshape(-1, x.shape[-1])  # FlagGems writes a kernel for each rank
    gate, up = rows.split_with_sizes((d, d), dim=-1)
    y: torch.Tensor = fn(gate, up, *options) if x.numel() else gate.new_empty(gate.shape)
    return y.reshape((*x.shape[:-1], d))
