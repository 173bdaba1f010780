"""What this backend offers for each op."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sglang_fl.records import BackendImplKind, BackendPriority, OpImpl
from sglang_fl_flaggems import availability

_OWN = {
    "silu_and_mul": "activation",
    "gelu_and_mul": "activation",
    "gelu_tanh_and_mul": "activation",
    "rms_norm": "rms_norm",
    "gemma_rms_norm": "rms_norm",
    "layer_norm": "layer_norm",
    "rotary_embedding": "rotary",
}
"""Op -> the module of our kernel."""

_OVERWRITTEN = {
    "rms_norm": ("x", "residual"),
    "gemma_rms_norm": ("x", "residual"),
    "rotary_embedding": ("query", "key"),
}

_FIRST = BackendPriority.DEFAULT + 5
"""Before FlagGems: one launch, at a tenth of the cost to the host."""


def own_kernels(device_type: str) -> Iterator[OpImpl]:
    """Our own Triton kernels. Each is one launch, which Dynamo would trace into Triton's own, dearer one."""
    for op, module in _OWN.items():
        yield OpImpl(
            op=op,
            impl_id="flagos.triton",
            kind=BackendImplKind.DEFAULT,
            priority=_FIRST,
            fn=f"sglang_fl_flaggems.kernels.{module}:{op}",
            is_available=partial(availability.own_kernels, device_type),
            mutates=_OVERWRITTEN.get(op, ()),
            traceable=False,
        )


def flag_gems(device_type: str) -> Iterator[OpImpl]:
    """FlagGems', all but Gemma's norm, which it has not. It logs in every op, and Dynamo cannot trace that."""
    offer = partial(
        OpImpl,
        impl_id="flagos.flaggems",
        kind=BackendImplKind.DEFAULT,
        is_available=partial(availability.flag_gems, device_type),
        traceable=False,
    )
    for op in ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"):
        yield offer(op=op, fn=f"sglang_fl_flaggems.gems:{op}")
    yield offer(
        op="rms_norm",
        fn="sglang_fl_flaggems.gems:rms_norm",
        accepts="sglang_fl_flaggems.gems_limits:rms_norm",
        mutates=("x", "residual"),
    )
    # It is tuned anew for every number of tokens, by timing it.
    yield offer(op="layer_norm", fn="sglang_fl_flaggems.gems:layer_norm", graph_safe=False)
    # Its rotation in place reads what another warp of the program may have written: not used.
    yield offer(
        op="rotary_embedding",
        fn="sglang_fl_flaggems.gems:rotary_embedding",
        accepts="sglang_fl_flaggems.gems_limits:rotary_embedding",
    )
