"""Calls of the norms."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.numbers import activations, normal
from sglang_fl.testing.calls.space import Space, either

_MEANS = (0.0, 1000.0)
"""Of the rows of a layer norm's x. The mean of the squares less a large mean's square has no digits left in float32."""


@st.composite
def rms_norm(draw: st.DrawFn, op: str, space: Space) -> Call:
    """x ``[..., d]``, a residual like it or None; a weight ``[d]``."""
    shape, dtype = (*draw(space.leads), draw(space.widths)), draw(st.sampled_from(space.dtypes))
    magnitude = draw(st.sampled_from(space.magnitudes))
    x, residual = (activations(shape, dtype, space.layouts, magnitude) for _ in range(2))
    layer = {
        "weight": draw(normal(shape[-1:], _weight_dtype(space, dtype))),
        "variance_epsilon": draw(st.sampled_from(space.epsilons)),
    }
    return Call(op, layer, {"x": draw(x), "residual": draw(residual) if draw(either(space.residual)) else None})


@st.composite
def layer_norm(draw: st.DrawFn, op: str, space: Space) -> Call:
    """x ``[..., d]``; weight and bias ``[d]`` that may not count."""
    shape, dtype = (*draw(space.leads), draw(space.widths)), draw(st.sampled_from(space.dtypes))
    magnitude = draw(st.sampled_from(space.magnitudes))
    layer = {
        "weight": draw(normal(shape[-1:], _weight_dtype(space, dtype))),
        "bias": draw(normal(shape[-1:], _weight_dtype(space, dtype))),
        "elementwise_affine": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
        "variance_epsilon": draw(st.sampled_from(space.epsilons)),
    }
    x = draw(activations(shape, dtype, space.layouts, magnitude))
    x.tensor.add_(draw(st.sampled_from(_MEANS)))
    return Call(op, layer, {"x": x})


def _weight_dtype(space: Space, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if space.float32_weights else dtype
