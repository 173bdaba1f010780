"""Every reference op traces into one graph, whatever the number of tokens, and the graph computes the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from .calls import OPS, Layer, tensors

WIDTH = 8


def _norm_layer() -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.weight, layer.bias = torch.nn.Parameter(torch.randn(WIDTH)), torch.nn.Parameter(torch.randn(WIDTH))
    layer.variance_epsilon, layer.elementwise_affine, layer.use_bias = 1e-6, True, True
    return layer


def _rotary_arguments(tokens: int, interleaved: bool, with_key: bool) -> tuple[Any, ...]:
    cos, sin = torch.randn(64, WIDTH).chunk(2, dim=-1)
    query = torch.randn(tokens, 3, WIDTH + 4)[..., :WIDTH]
    key = torch.randn(tokens, 1, WIDTH) if with_key else None
    return query, key, cos, sin, torch.randint(64, (tokens,)), interleaved


def _x(tokens: int) -> torch.Tensor:
    return torch.randn(tokens, WIDTH)


CASES: dict[str, tuple[str, Callable[[int], tuple[Any, ...]]]] = {
    **{op: (op, lambda tokens: (_x(tokens),)) for op in OPS if op != "rotary_embedding"},
    "rms_norm with a residual": ("rms_norm", lambda tokens: (_x(tokens), _x(tokens))),
    "gemma_rms_norm with a residual": ("gemma_rms_norm", lambda tokens: (_x(tokens), _x(tokens))),
    "rms_norm in bfloat16": ("rms_norm", lambda tokens: (_x(tokens).bfloat16(), _x(tokens).bfloat16())),
    "rotary_embedding of halves": ("rotary_embedding", lambda tokens: _rotary_arguments(tokens, False, True)),
    "rotary_embedding of neighbours": ("rotary_embedding", lambda tokens: _rotary_arguments(tokens, True, True)),
    "rotary_embedding of no key": ("rotary_embedding", lambda tokens: _rotary_arguments(tokens, False, False)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_op_is_one_graph(case: str) -> None:
    op, arguments = CASES[case]
    layer = _norm_layer() if "norm" in op else Layer()
    torch.compiler.reset()
    traced = torch.compile(OPS[op], fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.inference_mode():
        for tokens in (5, 2, 11):
            with torch.compiler.set_stance("default" if tokens == 5 else "fail_on_recompile"):
                inputs = arguments(tokens)
                for got, wanted in zip(tensors(traced(layer, *inputs)), tensors(OPS[op](layer, *inputs)), strict=True):
                    assert torch.equal(got, wanted)
