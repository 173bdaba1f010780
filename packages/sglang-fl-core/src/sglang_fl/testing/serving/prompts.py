"""Prompts of the tiny model."""

from __future__ import annotations

import torch

from sglang_fl.testing.serving.model import VOCABULARY


def prompts(*lengths: int, seed: int = 1) -> list[list[int]]:
    """Random tokens, the same each time."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (length,), generator=random).tolist() for length in lengths]
