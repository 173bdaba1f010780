"""The gated activations: x ``[..., 2d]``, the gate first -> a new tensor ``[..., d]`` of x's dtype."""

from __future__ import annotations

from typing import Any

import torch
import torch_npu


def silu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up``, by ``npu_swiglu``, which takes no strided tensor."""
    out: torch.Tensor = torch_npu.npu_swiglu(x.contiguous())
    return out


def gelu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """``gelu(gate) * up`` with the exact GELU."""
    return _geglu(x, approximate=0)


def gelu_tanh_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    """``gelu(gate) * up`` with the tanh approximation of GELU."""
    return _geglu(x, approximate=1)


def _geglu(x: torch.Tensor, approximate: int) -> torch.Tensor:
    # By default npu_geglu takes the second half for the gate. It answers with the activated gate, too.
    out: torch.Tensor = torch_npu.npu_geglu(x, approximate=approximate, activate_left=True)[0]
    return out
