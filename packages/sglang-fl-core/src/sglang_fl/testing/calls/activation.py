"""Calls of the gated activations."""

from __future__ import annotations

from hypothesis import strategies as st

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.numbers import activations
from sglang_fl.testing.calls.placed import Placed
from sglang_fl.testing.calls.space import LARGE, Space


@st.composite
def act_and_mul(draw: st.DrawFn, op: str, space: Space) -> Call:
    """x ``[..., 2d]``, the gate first."""
    shape = (*draw(space.leads), 2 * draw(space.widths))
    magnitude = draw(st.sampled_from(space.magnitudes))
    x = draw(activations(shape, draw(st.sampled_from(space.dtypes)), space.layouts, magnitude))
    return Call(op, {}, {"x": _with_small_up(x) if magnitude >= LARGE else x})


def _with_small_up(x: Placed) -> Placed:
    # Both halves large would be infinite in float16, and say nothing.
    half = x.tensor.shape[-1] // 2
    shrunk = x.within(x.memory.clone())
    shrunk.tensor[..., half:].div_(LARGE)
    return shrunk
