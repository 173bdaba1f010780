"""How near to exact a result must be."""

from __future__ import annotations

import torch

from tests.flaggems.device import INTERPRETED

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_ARITHMETIC = 4e-6
"""Of float32, relative to the largest element: a sum of many is no more exact."""

_ROUNDING = {
    torch.float32: 0.0,
    torch.float16: torch.finfo(torch.float16).eps / 2,
    torch.bfloat16: torch.finfo(torch.bfloat16).eps / (1 if INTERPRETED else 2),  # the interpreter truncates
}


def assert_near(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """``got`` is ``wanted``, in float64, but for float32 arithmetic and one rounding."""
    assert got.shape == wanted.shape
    allowed = _ARITHMETIC * wanted.abs().max() + _ROUNDING[got.dtype] * wanted.abs()
    worst = ((got.double() - wanted).abs() - allowed).max()
    assert worst <= 0, f"too far by {worst:.3g}"
