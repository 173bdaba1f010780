"""What a bound op and ``call_op`` cost per call, beside SGLang's own forward with the same kernel.

The kernels do nothing, so what is left is the way to them. Each pair is timed in turns, in one process, and the
figure is the median of the differences: a shared machine's drift falls on both.

    python -m benchmarks.dispatch [--json FILE]
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable
from dataclasses import replace
from types import MethodType, SimpleNamespace
from typing import Any

import torch

from benchmarks.figures import Figures, parser
from sglang_fl import BackendImplKind, OpImpl, Platform, SelectionPolicy, api
from sglang_fl.dispatch import Dispatcher
from sglang_fl.ranking import Candidate
from sglang_fl.settings import Settings

ROUNDS, CALLS = 100, 2000
BOUND_OP_US, CALL_OP_US = 0.2, 1.0

PLATFORM = Platform(name="benchmark", device_type="cpu", is_available=lambda: True, total_memory=lambda index: 0)

Call = Callable[[], Any]
Kernel = Callable[..., Any]


def main() -> None:
    """Times every bridge, and ``call_op``."""
    args = parser(__doc__).parse_args()
    figures = Figures(args.json)
    for name, own, bound in (_silu_and_mul(), _rms_norm(), _rms_norm_residual(), _layer_norm(), _rotary(), _partial()):
        base, extra = difference(own, bound)
        figures.add(f"{name}.own_forward", base, "us")
        figures.add(f"{name}.bound_op_adds", extra, "us", at_most=BOUND_OP_US)
    direct, call_op = _call_op()
    figures.add("call_op.adds", difference(direct, call_op)[1], "us", at_most=CALL_OP_US)
    figures.finish()


def difference(own: Call, other: Call) -> tuple[float, float]:
    """Median microseconds of ``own``, and median of what ``other`` takes more, over rounds that alternate."""
    timers = [timeit.Timer(own), timeit.Timer(other)]
    for timer in timers:
        timer.timeit(CALLS)
    rounds = [[timer.timeit(CALLS) / CALLS * 1e6 for timer in timers] for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in rounds), statistics.median(b - a for a, b in rounds)


def _silu_and_mul() -> tuple[str, Call, Call]:
    from sglang.srt.layers.activation import SiluAndMul  # noqa: PLC0415 - takes 15 s

    half = torch.ones(1, 4)
    return _pair("silu_and_mul", "silu_and_mul", SiluAndMul, (torch.ones(1, 8),), lambda obj, x: half)


def _rms_norm() -> tuple[str, Call, Call]:
    from sglang.srt.layers.layernorm import RMSNorm  # noqa: PLC0415

    return _pair("rms_norm", "rms_norm", lambda: RMSNorm(8), (torch.ones(1, 8),), lambda obj, x, residual=None: x)


def _rms_norm_residual() -> tuple[str, Call, Call]:
    from sglang.srt.layers.layernorm import RMSNorm  # noqa: PLC0415

    args = (torch.ones(1, 8), torch.ones(1, 8))
    return _pair("rms_norm_residual", "rms_norm", lambda: RMSNorm(8), args, lambda obj, x, residual=None: (x, residual))


def _layer_norm() -> tuple[str, Call, Call]:
    from sglang.srt.layers.layernorm import LayerNorm  # noqa: PLC0415

    return _pair("layer_norm", "layer_norm", lambda: LayerNorm(8), (torch.ones(1, 8),), lambda obj, x: x)


def _pair(name: str, op: str, build: Callable[[], Any], args: tuple[Any, ...], kernel: Kernel) -> Any:
    """A layer whose forward is the kernel itself, as cheap as SGLang can have it, and one that is bound to it."""
    own, bound = build(), build()
    own._forward_method = MethodType(kernel, own)
    _bind(bound, op, kernel)
    return name, lambda: own(*args), lambda: bound(*args)


def _rotary() -> tuple[str, Call, Call]:
    return _rotary_pair("rotary_embedding", rotary_dim=64)


def _partial() -> tuple[str, Call, Call]:
    return _rotary_pair("rotary_embedding_partial", rotary_dim=32)


def _rotary_pair(name: str, rotary_dim: int) -> tuple[str, Call, Call]:
    """SGLang's own forward on CUDA, its kernel replaced by one that does nothing: it has to split heads as we do."""
    from sglang.srt.layers.rotary_embedding import base  # noqa: PLC0415

    base.apply_rope_with_cos_sin_cache_inplace = lambda **kwargs: None
    own, bound = (base.RotaryEmbedding(64, rotary_dim, 128, 10000, True, torch.float32) for _ in range(2))
    own._forward_method = own.forward_cuda
    _bind(bound, "rotary_embedding", lambda obj, q, k, cos, sin, positions, interleaved, inplace: (q, k))
    args = (torch.zeros(1, dtype=torch.int64), torch.ones(1, 128), torch.ones(1, 64))
    return name, lambda: own(*args), lambda: bound(*args)


def _bind(layer: Any, op: str, kernel: Kernel) -> None:
    """Has the adapter bind ``layer``; its first call, in the warm-up, puts the kernel on probation."""
    from sglang_fl.adapter.binding import Binder  # noqa: PLC0415

    layer._forward_method = Binder(_dispatcher(op, kernel), Settings(), PLATFORM).forward_for(
        layer, layer.forward_native
    )


def _call_op() -> tuple[Call, Call]:
    half, obj, x = torch.ones(1, 4), SimpleNamespace(), torch.ones(1, 8)
    kernel = lambda obj, x: half  # noqa: E731 - the same kind of function on both sides
    served = replace(api.session(), dispatcher=_dispatcher("silu_and_mul", kernel))
    api.session = lambda: served
    return lambda: kernel(obj, x), lambda: api.call_op("silu_and_mul", obj, x)


def _dispatcher(op: str, kernel: Kernel) -> Dispatcher:
    impl = OpImpl(op=op, impl_id="nothing", kind=BackendImplKind.REFERENCE, fn=kernel)
    return Dispatcher([Candidate(impl, "benchmark", "benchmark")], SelectionPolicy())


if __name__ == "__main__":
    main()
