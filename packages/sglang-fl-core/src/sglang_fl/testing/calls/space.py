"""Which calls are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.placed import Layout

HALVES = (torch.float16, torch.bfloat16)
LARGE = 3e4
"""A magnitude that float16 holds, and whose square it does not."""

_REALISTIC_WIDTHS = (16, 64, 128)


@dataclass(frozen=True)
class Space:
    """The legal calls to draw from. A test narrows it with ``dataclasses.replace``.

    Attributes:
        dtypes: of the activations.
        leads: all dimensions but the last; rotary calls have their product as number of tokens.
        widths: the last dimension of a norm's x, half of an activation's, and the rotated part of a head.
        layouts: how the activations lie in memory.
        magnitudes: how large the activations are.
        epsilons: the ``variance_epsilon`` of norms.
        float32_weights: weights in float32 whatever the activations are; in their dtype otherwise.
        residual: with a residual, without, or either.
        max_heads: of query and key.
        interleaved: neighbours are paired, halves are, or either.
        partial: heads are wider than their rotated part, are not, or either.
        key: with a key, without, or either.
        inplace: the inputs may be overwritten, may not, or either.
        max_position: how many positions the tables hold.
        float32_tables: cos and sin in float32, in the query's dtype, or either.
    """

    dtypes: tuple[torch.dtype, ...]
    leads: st.SearchStrategy[tuple[int, ...]]
    widths: st.SearchStrategy[int]
    layouts: tuple[Layout, ...] = (Layout.CONTIGUOUS,)
    magnitudes: tuple[float, ...] = (1.0, 1e-3, 30.0, 0.0)
    epsilons: tuple[float, ...] = (1e-6, 1e-5)
    float32_weights: bool = False
    residual: bool | None = None
    max_heads: int = 4
    interleaved: bool | None = None
    partial: bool | None = None
    key: bool | None = None
    inplace: bool | None = None
    max_position: int = 4096
    float32_tables: bool | None = None


def whole_space(dtypes: tuple[torch.dtype, ...], device: torch.device) -> Space:
    """Every legal call but the empty, the huge and the strided ones. A CPU gets small ones: its kernels may be
    simulated ones."""
    rows, width = (5, 67) if device.type == "cpu" else (300, 1100)
    row, few = st.integers(1, rows), st.integers(1, 5)
    return Space(
        dtypes=dtypes,
        leads=st.tuples(row) | st.tuples(few, few) | st.just(()),
        widths=st.sampled_from(_REALISTIC_WIDTHS) | st.integers(1, width),
    )


def served_space(space: Space) -> Space:
    """Of ``space``, what the layers of served models call: rows side by side, heads of usual widths, with a key."""
    widths = st.sampled_from(_REALISTIC_WIDTHS[1:])
    return replace(space, widths=widths, layouts=(Layout.CONTIGUOUS,), partial=False, key=True, interleaved=False)


def either(choice: bool | None) -> st.SearchStrategy[bool]:
    """What a choice of ``Space`` leaves open."""
    return st.booleans() if choice is None else st.just(choice)
