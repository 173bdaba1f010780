"""The precision that the reference ops compute in."""

from __future__ import annotations

import torch


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in for inputs of ``dtype``: float32, or ``dtype`` itself when that is wider."""
    return torch.promote_types(dtype, torch.float32)
