"""Legal calls of every op, drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from sglang_fl.testing.calls.activation import act_and_mul
from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.norm import layer_norm, rms_norm
from sglang_fl.testing.calls.rotary import rotary_embedding
from sglang_fl.testing.calls.space import Space

_STRATEGIES = {
    "silu_and_mul": act_and_mul,
    "gelu_and_mul": act_and_mul,
    "gelu_tanh_and_mul": act_and_mul,
    "rms_norm": rms_norm,
    "gemma_rms_norm": rms_norm,
    "layer_norm": layer_norm,
    "rotary_embedding": rotary_embedding,
}


def calls(op: str, space: Space) -> st.SearchStrategy[Call]:
    """Calls of ``op`` within ``space``."""
    return _STRATEGIES[op](op, space)
