"""The ops and their limits are traced by Dynamo whole, and the graph computes what the eager call does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.ascend.under_torch_npu.subjects import IMPLS, OPS


def _arguments(op: str, tokens: int, dtype: torch.dtype) -> tuple[Any, ...]:
    """A call with a residual, a key, a weight in float32."""
    if op == "rotary_embedding":
        cache = torch.randn(16, 64, dtype=dtype)
        layer = SimpleNamespace(cos_sin_cache=cache, head_size=128, rotary_dim=64, is_neox_style=True)
        query, key = (torch.randn(tokens, heads, 128, dtype=dtype)[..., :64] for heads in (4, 2))
        return layer, query, key, *cache.chunk(2, -1), torch.arange(tokens)
    x = torch.randn(tokens, 64, dtype=dtype)
    parameters = {"weight": torch.randn(64), "bias": torch.randn(64), "variance_epsilon": 1e-6}
    layer = SimpleNamespace(**parameters, elementwise_affine=True, use_bias=True)
    return (layer, x, torch.randn_like(x)) if op.endswith("rms_norm") else (layer, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_an_op_is_traced_whole(op: str, dtype: torch.dtype) -> None:
    impl = IMPLS[op]
    fn, accepts = impl.load(), impl.load_accepts()
    assert impl.traceable
    assert accepts is not None

    def call(*arguments: Any) -> Any:
        return fn(*arguments) if accepts(*arguments) is True else None

    torch.compiler.reset()
    compiled = torch.compile(call, backend="eager", fullgraph=True, dynamic=True)
    for tokens in (3, 5):
        arguments = _arguments(op, tokens, dtype)
        torch.testing.assert_close(compiled(*arguments), fn(*arguments), rtol=0, atol=0)
