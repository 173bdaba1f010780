"""Which legal calls FlagGems does not serve."""

from __future__ import annotations

from typing import Any

import torch

from sglang_fl.records import Answer

_WIDEST = 4096
"""FlagGems takes a kernel that is tuned for its width beyond this one."""


def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Answer:
    """What takes no residual finds rows by 32-bit offsets when narrow, and is tuned when wide."""
    if residual is not None:
        return True
    if x.shape[-1] <= _WIDEST:
        return x.numel() < 2**31 or "FlagGems finds the rows of x by 32-bit offsets, and they do not reach"
    return not _is_capturing(x.device) or "FlagGems times variants of a norm this wide, which no graph can hold"


def rotary_embedding(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> Answer:
    """Whatever has dense tables."""
    return cos.stride(-1) == sin.stride(-1) == 1 or "FlagGems wants the rows of cos and sin dense"


def _is_capturing(device: torch.device) -> bool:
    capturing = getattr(torch.get_device_module(device), "is_current_stream_capturing", None)
    return capturing is not None and bool(capturing())
