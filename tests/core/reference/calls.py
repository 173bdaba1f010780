"""Legal calls of every op, drawn at random, and how near to exact their results must be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_fl.ops import CONTRACTS
from sglang_fl.records import Platform, always
from sglang_fl.reference.hooks import sglang_fl_register_ops

OPS: dict[str, Callable[..., Any]] = {
    impl.op: impl.load()
    for impl in sglang_fl_register_ops(Platform(name="any", device_type="cpu", is_available=always, in_tree=True))
}
"""The reference implementations, as their records declare them."""

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES, torch.float64)


class Layer:
    """A layer with just the attributes given, so that an op which reads another one fails."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@dataclass
class Call:
    """One call of an op: its arguments by name, ``obj`` first."""

    op: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        return OPS[self.op](**self.arguments)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Every tensor that the op is given, the layer's too."""
        values = [*self.arguments.values(), *vars(self.obj).values()]
        return [value for value in values if isinstance(value, torch.Tensor)]


def tensors(result: Any) -> list[torch.Tensor]:
    """The tensors of a result."""
    return [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]


erfc = np.vectorize(math.erfc, otypes=[np.float64])


def exact(tensor: torch.Tensor) -> np.ndarray:
    """The same values in float64."""
    return tensor.double().numpy()


def assert_rounded_once(got: torch.Tensor, wanted: np.ndarray, scale: np.ndarray) -> None:
    """``got`` is as near to ``wanted`` as fp32 (for float64: float64) arithmetic and one rounding allow.

    Args:
        scale: the size of the terms whose sum ``wanted`` is: the sum of numbers is no more exact than they are.
    """
    info = torch.finfo(got.dtype)
    arithmetic = 1e-13 if got.dtype == torch.float64 else 2e-6
    rounding = info.eps / 2 if got.dtype in HALVES else 0.0
    smallest = max(info.smallest_normal * info.eps, torch.finfo(torch.float32).tiny)
    assert np.all(np.abs(exact(got) - wanted) <= arithmetic * scale + rounding * np.abs(wanted) + smallest)


@st.composite
def _tensors(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype, size: float = 1.0) -> torch.Tensor:
    """Random values laid out as a tensor of its own, as a slice of wider rows, or transposed."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    layout = draw(st.sampled_from(["contiguous", "wider rows", "transposed"]))
    if layout == "wider rows":
        wider = torch.randn((*shape[:-1], shape[-1] + 5), generator=random) * size
        return wider.to(dtype)[..., 2 : 2 + shape[-1]]
    values = torch.randn(shape, generator=random) * size
    if layout == "transposed":
        values = values.transpose(0, -1).contiguous().transpose(0, -1)
    return values.to(dtype)


_leading = st.lists(st.integers(0, 5), max_size=2).map(tuple)
_widths = st.integers(1, 67)
_dtypes = st.sampled_from(DTYPES)
_sizes = st.sampled_from([1e-3, 1.0, 30.0])


@st.composite
def _act_and_mul(draw: st.DrawFn, op: str) -> Call:
    shape = (*draw(_leading), 2 * draw(_widths))
    return Call(op, {"obj": Layer(), "x": draw(_tensors(shape, draw(_dtypes), draw(_sizes)))})


@st.composite
def _rms_norm(draw: st.DrawFn, op: str) -> Call:
    shape, dtype = (*draw(_leading), draw(_widths)), draw(_dtypes)
    layer = Layer(
        weight=draw(_tensors(shape[-1:], draw(st.sampled_from((dtype, torch.float32, *HALVES))))),
        variance_epsilon=draw(st.sampled_from([1e-6, 1e-5])),
    )
    x = draw(_tensors(shape, dtype, draw(_sizes)))
    residual = draw(st.none() | _tensors(shape, dtype, draw(_sizes)))
    return Call(op, {"obj": layer, "x": x, "residual": residual})


@st.composite
def _layer_norm(draw: st.DrawFn, op: str) -> Call:
    shape, dtype = (*draw(_leading), draw(_widths)), draw(_dtypes)
    parameters = draw(_dtypes)
    layer = Layer(
        weight=draw(_tensors(shape[-1:], parameters)),
        bias=draw(_tensors(shape[-1:], parameters)),
        elementwise_affine=draw(st.booleans()),
        use_bias=draw(st.booleans()),
        variance_epsilon=draw(st.sampled_from([1e-6, 1e-5])),
    )
    return Call(op, {"obj": layer, "x": draw(_tensors(shape, dtype, draw(_sizes)))})


@functools.cache
def _cos_sin_cache(rows: int, half: int) -> torch.Tensor:
    angles = torch.arange(rows).double().outer(10000.0 ** (-torch.arange(half).double() / half))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@st.composite
def _rotary_embedding(draw: st.DrawFn, op: str) -> Call:
    tokens, half, dtype = draw(st.integers(0, 5)), draw(st.integers(1, 33)), draw(_dtypes)
    rows = draw(st.sampled_from([1, 7, 4096]))
    cache = _cos_sin_cache(rows, half).to(draw(_dtypes))
    cos, sin = cache.chunk(2, dim=-1)
    positions = draw(st.lists(st.sampled_from([0, rows // 2, rows - 1]), min_size=tokens, max_size=tokens))
    query, key = ((tokens, draw(st.integers(1, 4)), 2 * half) for _ in range(2))
    arguments = {
        "obj": Layer(head_size=2 * half, rotary_dim=2 * half, cos_sin_cache=cache),
        "query": draw(_tensors(query, dtype, draw(_sizes))),
        "key": draw(st.none() | _tensors(key, dtype, draw(_sizes))),
        "cos": cos,
        "sin": sin,
        "position_ids": torch.tensor(positions, dtype=draw(st.sampled_from([torch.int32, torch.int64]))),
        "rotary_interleaved": draw(st.booleans()),
        "inplace": draw(st.booleans()),
    }
    return Call(op, arguments)


_STRATEGIES = {
    **dict.fromkeys(("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"), _act_and_mul),
    **dict.fromkeys(("rms_norm", "gemma_rms_norm"), _rms_norm),
    "layer_norm": _layer_norm,
    "rotary_embedding": _rotary_embedding,
}


def for_calls(*ops: str) -> Callable[[Callable[[Call], None]], Callable[[], None]]:
    """Runs a test for legal calls of ``ops``, or of every op.

    Empty and single rows, one to three dimensions, odd widths, strides, mixed dtypes. No deadline: a busy machine
    is no failure.
    """
    calls = st.sampled_from(ops or tuple(CONTRACTS)).flatmap(lambda op: _STRATEGIES[op](op))
    return lambda test: settings(deadline=None)(given(calls)(test))
