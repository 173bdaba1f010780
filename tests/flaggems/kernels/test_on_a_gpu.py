"""What only a GPU can tell of our kernels."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl_flaggems.kernels.activation import silu_and_mul
from sglang_fl_flaggems.kernels.launch import MANY, Kernel
from sglang_fl_flaggems.kernels.layer_norm import layer_norm
from sglang_fl_flaggems.kernels.rms_norm import rms_norm
from sglang_fl_flaggems.kernels.rotary import rotary_embedding
from tests.flaggems.device import DEVICE, needs_gpu
from tests.flaggems.kernels.nearness import assert_near

pytestmark = needs_gpu

D = 256
Call = Callable[[], tuple[torch.Tensor, ...]]
Inputs = list[torch.Tensor]
Made = Callable[[], tuple[Call, Inputs]]


def layer(n: int = D) -> Any:
    weight, bias = torch.randn(2, n, device=DEVICE).unbind()
    return SimpleNamespace(weight=weight, bias=bias, variance_epsilon=1e-6, elementwise_affine=True, use_bias=True)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE)


def activation() -> tuple[Call, Inputs]:
    x = random(5, 2 * D)
    return lambda: (silu_and_mul(None, x),), [x]


def norm() -> tuple[Call, Inputs]:
    obj, x = layer(), random(5, D)
    return lambda: (rms_norm(obj, x),), [x]


def norm_of_a_sum() -> tuple[Call, Inputs]:
    obj, x, residual = layer(), random(5, D), random(5, D)
    return lambda: rms_norm(obj, x, residual), [x, residual]


def whole_norm() -> tuple[Call, Inputs]:
    obj, x = layer(), random(5, D)
    return lambda: (layer_norm(obj, x),), [x]


def rotation() -> tuple[Call, Inputs]:
    query, key, at = random(5, 4, 64), random(5, 2, 64), torch.arange(5, device=DEVICE)
    cos, sin = random(5, 64).chunk(2, dim=-1)
    return lambda: rotary_embedding(None, query, key, cos, sin, at), [query, key]


EVERY = pytest.mark.parametrize("made", [activation, norm, norm_of_a_sum, whole_norm, rotation])


def kernels_of(call: Call) -> list[str]:
    """The kernels that a call launches."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [name for name in names if not name.startswith("Activity")]


@EVERY
def test_a_call_is_one_launch(made: Made) -> None:
    call, _ = made()
    call()
    assert len(kernels_of(call)) == 1


@EVERY
def test_a_graph_gives_the_bits_of_an_eager_call(made: Made) -> None:
    call, inputs = made()
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    values = [torch.randn_like(x) for x in inputs]
    torch._foreach_copy_(inputs, values)
    graph.replay()
    replayed = [result.clone() for result in results]
    torch._foreach_copy_(inputs, values)
    assert all(map(torch.equal, replayed, call()))


@EVERY
def test_a_later_call_skips_tritons_own_launcher(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    call, inputs = made()
    values = [x.clone() for x in inputs]
    first = [result.clone() for result in call()]

    def unexpected(*args: Any) -> Any:
        pytest.fail("Triton looked at the arguments again")

    monkeypatch.setattr(Kernel, "__call__", unexpected)
    torch._foreach_copy_(inputs, values)
    assert all(map(torch.equal, call(), first))


def test_aligned_and_unaligned_calls_in_turn_are_right() -> None:
    memory = torch.randn(3, 2 * D + 8, device=DEVICE, dtype=torch.bfloat16)
    for start in (0, 1, 8, 3, 0):
        x = memory[:, start : start + 2 * D]
        gate, up = x.double().chunk(2, dim=-1)
        assert_near(silu_and_mul(None, x), torch.nn.functional.silu(gate) * up)


@pytest.mark.parametrize("op", [silu_and_mul, rms_norm, layer_norm])
def test_rows_beyond_32_bit_offsets_are_found(op: Any) -> None:
    tokens = 2**31 // (2 * D) + 7
    x = torch.empty(tokens, 2 * D, device=DEVICE, dtype=torch.bfloat16).fill_(0.5)
    x[-5:] = torch.randn(5, 2 * D, device=DEVICE)
    obj = layer(2 * D)
    assert torch.equal(op(obj, x)[-5:], op(obj, x[-MANY:].clone())[-5:])


def test_a_call_on_a_stream_of_its_own_is_ordered_there() -> None:
    call, (x,) = norm()
    wanted = call()[0]
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        x.mul_(2.0)
        got = call()[0]
    stream.synchronize()
    assert_near(got, wanted.double())  # a norm of twice x is the norm of x
