"""The gated activations: computed in fp32, rounded once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from sglang_fl.reference.precision import wide


def silu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` for x = (gate, up): ``[..., 2d]`` -> ``[..., d]``. RuntimeError for an odd last dimension."""
    gate, up = _halves(x)
    return F.silu(gate).mul_(up).to(x.dtype)


def gelu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """As :func:`silu_and_mul`, with the exact GELU."""
    gate, up = _halves(x)
    return F.gelu(gate).mul_(up).to(x.dtype)


def gelu_tanh_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """As :func:`silu_and_mul`, with the tanh approximation of GELU."""
    gate, up = _halves(x)
    return F.gelu(gate, approximate="tanh").mul_(up).to(x.dtype)


def _halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Not chunk(): it gives an odd row two unequal halves, which may then broadcast into a wrong answer.
    d = x.shape[-1] // 2
    gate, up = x.to(wide(x.dtype)).split_with_sizes((d, d), dim=-1)
    return gate, up
