"""CPU kernels for torch_npu's operators, from the vendor's documentation alone: the formula, and what is not taken.

The documentation is that of :mod:`sglang_fl_ascend.limits`. It does not say in which precision an operator computes:
here it is float32, rounded once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torch_npu  # noqa: F401 - defines the operators

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_library = torch.library.Library("npu", "IMPL", "CPU")


def register() -> None:
    """Gives torch_npu's operators these kernels on CPU tensors."""
    for kernel in (npu_swiglu, npu_geglu, npu_rms_norm, npu_add_rms_norm, npu_gemma_rms_norm, npu_mrope):
        _library.impl(kernel.__name__, kernel)


def npu_swiglu(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """swish(A) * B."""
    _documented(x.dtype in _DTYPES and 1 <= x.dim() <= 8 and x.size(dim) % 2 == 0)
    _documented(x.numel() > 0 and x.is_contiguous())
    gate, up = x.float().chunk(2, dim)
    return (F.silu(gate) * up).to(x.dtype)


def npu_geglu(
    x: torch.Tensor, dim: int = -1, approximate: int = 1, activate_left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """gelu(A) * B when left is activated, A * gelu(B) otherwise; and the activated half. approximate 1 is tanh."""
    _documented(x.dtype in _DTYPES and 1 <= x.dim() <= 8 and x.size(dim) % 2 == 0)
    _documented(x.numel() > 0 and approximate in (0, 1))
    left, right = x.float().chunk(2, dim)
    gate, up = (left, right) if activate_left else (right, left)
    activated = F.gelu(gate, approximate="tanh" if approximate else "none")
    return (activated * up).to(x.dtype), activated.to(x.dtype)


def npu_rms_norm(x: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """x / rms(x) * gamma; and 1 / rms(x)."""
    _documented(x.dtype in _DTYPES and 2 <= x.dim() <= 8 and x.numel() > 0 and gamma.dtype is x.dtype)
    return _normed(x, gamma.float(), epsilon, x.dtype)


def npu_add_rms_norm(
    x1: torch.Tensor, x2: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The norm of x1 + x2; 1 / rms; the sum."""
    _documented(x1.dtype in _DTYPES and 2 <= x1.dim() <= 8 and x1.numel() > 0)
    _documented(x1.shape == x2.shape and x1.dtype is x2.dtype is gamma.dtype)
    total = x1.float() + x2.float()
    return *_normed(total, gamma.float(), epsilon, x1.dtype), total.to(x1.dtype)


def npu_gemma_rms_norm(
    x: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """x / rms(x) * (1 + gamma); and 1 / rms(x)."""
    _documented(x.dtype in _DTYPES and 1 <= x.dim() <= 8 and gamma.dtype is x.dtype)
    _documented(x.numel() > 0 and x.is_contiguous())
    return _normed(x, 1 + gamma.float(), epsilon, x.dtype)


def npu_mrope(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    head_size: int,
    *,
    mrope_section: list[int] | None = None,
    rotary_mode: str | None = "half",
    cache_mode: str | None = "default",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns the first part of each head, as wide as the cache, by positions; only its mode without sections."""
    rotary_dim = cos_sin_cache.shape[-1]
    _documented(query.dtype in _DTYPES and query.dtype is key.dtype is cos_sin_cache.dtype)
    _documented(rotary_dim <= head_size and positions.dtype is torch.int64 and cache_mode == "default")
    _documented(not any(width % (16 if query.dtype is torch.float32 else 32) for width in (rotary_dim, head_size)))
    _documented(positions.dim() == 1 and not any(mrope_section or ()) and rotary_mode in ("half", "interleave"))
    cos, sin = cos_sin_cache.float().index_select(0, positions).unsqueeze(1).chunk(2, -1)
    rotated = (_rotated(rows, head_size, cos, sin, rotary_mode == "half") for rows in (query, key))
    return next(rotated), next(rotated)


def _normed(
    x: torch.Tensor, factor: torch.Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    rstd = (x.float().square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (x.float() * rstd * factor).to(dtype), rstd


def _rotated(rows: torch.Tensor, head_size: int, cos: torch.Tensor, sin: torch.Tensor, halves: bool) -> torch.Tensor:
    _documented(rows.dim() == 2 and rows.numel() > 0 and rows.stride(1) == 1 and rows.size(1) % head_size == 0)
    heads = rows.float().unflatten(1, (-1, head_size))
    turned, rest = heads.tensor_split([2 * cos.shape[-1]], -1)
    one, other = turned.chunk(2, -1) if halves else (turned[..., ::2], turned[..., 1::2])
    pair = (one * cos - other * sin, other * cos + one * sin)
    turned = torch.cat(pair, -1) if halves else torch.stack(pair, -1).flatten(-2)
    return torch.cat((turned, rest), -1).flatten(1).to(rows.dtype)


def _documented(holds: bool) -> None:
    if not holds:
        msg = "the documentation excludes such a call"
        raise RuntimeError(msg)
