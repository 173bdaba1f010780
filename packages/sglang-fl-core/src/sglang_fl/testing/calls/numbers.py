"""The numbers in the tensors."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.placed import Layout, Placed, place

seeds = st.integers(0, 2**31)


@st.composite
def normal(
    draw: st.DrawFn,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    magnitude: float = 1.0,
    layouts: tuple[Layout, ...] = (Layout.CONTIGUOUS,),
) -> Placed:
    """Normally distributed numbers, ``magnitude`` times the standard ones; none is larger than three times it."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(seeds))).clamp_(-3, 3) * magnitude
    return place(values.to(dtype), draw(st.sampled_from(layouts)))


@st.composite
def bounded(
    draw: st.DrawFn,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bound: float,
    layouts: tuple[Layout, ...] = (Layout.CONTIGUOUS,),
) -> Placed:
    """Numbers of either sign between half of ``bound`` and ``bound``."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(seeds))) - 0.5
    return place(((values + values.sign().mul_(0.5)) * bound).to(dtype), draw(st.sampled_from(layouts)))


@st.composite
def activations(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype, layouts: tuple[Layout, ...], magnitude: float
) -> Placed:
    """What flows through an op: bounded where it is so large that three times it would be infinite."""
    numbers = bounded if magnitude >= 1e4 else normal
    return draw(numbers(shape, dtype, magnitude, layouts))
