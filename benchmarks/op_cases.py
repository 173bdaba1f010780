"""The calls that ``benchmarks.ops`` measures: an op, its layer and its tensors at one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.figures import worst
from sglang_fl.ops import CONTRACTS
from sglang_fl.reference.activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul
from sglang_fl.reference.normalization import gemma_rms_norm, layer_norm, rms_norm
from sglang_fl.reference.rotary import rotary_embedding

HIDDEN = (576, 2048, 4096, 8192, 16384)
TOKENS = (1, 64, 1024, 16384)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
POSITIONS = 4096
CHECKED_ROWS = 512
"""Rows of a result that are compared with float64; each depends on its own row of the input alone."""

EXACT: Mapping[str, Callable[..., Any]] = {
    fn.__name__: fn
    for fn in (silu_and_mul, gelu_and_mul, gelu_tanh_and_mul, rms_norm, gemma_rms_norm, layer_norm, rotary_embedding)
}
"""The reference ops, which compute in float64 when that is what they are given."""


@dataclass(frozen=True)
class Case:
    """One op at one size. ``hidden`` is the width of an activation's result, of a norm, and of all query heads."""

    op: str
    residual: bool
    hidden: int
    tokens: int
    dtype: torch.dtype

    @property
    def work(self) -> str:
        """The op, and whether it adds a residual."""
        return f"{self.op}.residual" if self.residual else self.op

    @property
    def dtype_name(self) -> str:
        """The dtype without ``torch.``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def traffic(self) -> int:
        """Bytes that any implementation must read and write, the layer's weights left out."""
        widths = {"layer_norm": 2, "rms_norm": 2, "gemma_rms_norm": 2, "rotary_embedding": 2.5}
        width = 4 if self.residual else widths.get(self.op, 3)
        return int(width * self.hidden * self.tokens * self.dtype.itemsize)

    def arguments(self, device: torch.device) -> tuple[Any, ...]:
        """Fresh random ones: the layer, then the op's."""
        if self.op == "rotary_embedding":
            return self._rotary(device)
        x = self._random(device, 2 * self.hidden if self.op.endswith("_and_mul") else self.hidden)
        layer = self._norm(device) if self.op.endswith("_norm") else None
        return (layer, x, self._random(device, self.hidden)) if self.residual else (layer, x)

    def error(self, implementation: Callable[..., Any], device: torch.device) -> float:
        """The largest error of ``implementation`` against float64, relative to the exact value and the row's mean."""
        arguments = self.arguments(device)
        exact = EXACT[self.op](*(_of_rows(value, self.tokens) for value in arguments))
        pairs = zip(_tensors(implementation(*arguments)), _tensors(exact), strict=True)
        return worst(_error(_rows(got).double(), want) for got, want in pairs)

    def _random(self, device: torch.device, *shape: int) -> torch.Tensor:
        return torch.randn(self.tokens, *shape, device=device, dtype=self.dtype)

    def _norm(self, device: torch.device) -> SimpleNamespace:
        weight, bias = torch.randn(2, self.hidden, device=device).to(self.dtype)
        return SimpleNamespace(weight=weight, bias=bias, variance_epsilon=1e-6, elementwise_affine=True, use_bias=True)

    def _rotary(self, device: torch.device) -> tuple[Any, ...]:
        head = 64 if self.hidden % 128 else 128
        heads = self.hidden // head
        angles = torch.rand(POSITIONS, head // 2, device=device) * 6.28
        cache = torch.cat((angles.cos(), angles.sin()), dim=-1)  # float32, as SGLang keeps it on a GPU
        layer = SimpleNamespace(head_size=head, rotary_dim=head, is_neox_style=True, cos_sin_cache=cache)
        positions = torch.randint(POSITIONS, (self.tokens,), device=device)
        keys = self._random(device, max(heads // 4, 1), head)
        return layer, self._random(device, heads, head), keys, *cache.chunk(2, dim=-1), positions


def cases() -> Iterator[Case]:
    """Every op, with and without a residual where it takes one, at every size and dtype."""
    works = [(op, False) for op in CONTRACTS] + [("rms_norm", True), ("gemma_rms_norm", True)]
    for (op, residual), dtype, hidden, tokens in product(works, DTYPES, HIDDEN, TOKENS):
        yield Case(op, residual, hidden, tokens, dtype)


def _rows(value: torch.Tensor) -> torch.Tensor:
    return value[:: max(value.shape[0] // CHECKED_ROWS, 1)]


def _of_rows(value: Any, tokens: int) -> Any:
    """The checked rows of what has one row per token, in float64; a layer's weights in float64, too."""
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**{name: _of_rows(part, -1) for name, part in vars(value).items()})
    if not isinstance(value, torch.Tensor):
        return value
    rows = _rows(value) if value.shape[0] == tokens else value
    return rows.double() if rows.is_floating_point() else rows.clone()


def _tensors(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple | list) else [result]


def _error(got: torch.Tensor, exact: torch.Tensor) -> float:
    scale = exact.abs() + exact.abs().mean(dim=-1, keepdim=True)
    return ((got - exact).abs() / scale).max().item()
