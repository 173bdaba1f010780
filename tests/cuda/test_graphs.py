"""The ops in CUDA graphs and in compiled code: the same answers, with no break and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.cuda.backend import Backend

OPS = (
    "silu_and_mul",
    "gelu_and_mul",
    "gelu_tanh_and_mul",
    "rms_norm",
    "gemma_rms_norm",
    "layer_norm",
    "rotary_embedding",
)

on_a_gpu = pytest.mark.parametrize("backend", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)


@dataclass
class Call:
    """A call of an op.

    Attributes:
        layer: all that any op reads.
        moving: the activations, which an op may overwrite.
        fixed: what follows them.
    """

    layer: torch.nn.Module
    moving: tuple[torch.Tensor, ...]
    fixed: tuple[torch.Tensor, ...] = ()

    def __call__(self, op: Callable[..., Any]) -> tuple[torch.Tensor, ...]:
        """The results, in memory of their own."""
        with torch.inference_mode():
            result = op(self.layer, *self.moving, *self.fixed)
            return tuple(tensor.clone() for tensor in (result if isinstance(result, tuple) else (result,)))

    def with_(self, moving: tuple[torch.Tensor, ...]) -> Call:
        """The same call of copies of other activations."""
        return Call(self.layer, tuple(tensor.clone() for tensor in moving), self.fixed)


def bound(backend: Backend, op: str) -> Callable[..., Any]:
    """The op as core binds it: asked before each call."""
    fn, accepts = backend.fn(op), backend.asked(op)

    def call(*args: Any) -> Any:
        if accepts(*args) is True:
            return fn(*args)
        raise AssertionError(op)

    return call


def call_of(backend: Backend, op: str) -> Call:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(backend.randn(256), requires_grad=False)
    module.bias = torch.nn.Parameter(backend.randn(256), requires_grad=False)
    module.register_buffer("cos_sin_cache", backend.randn(128, 64, dtype=torch.float32))
    vars(module).update(variance_epsilon=1e-6, elementwise_affine=True, use_bias=True, head_size=64)
    if op == "rotary_embedding":
        tables = module.cos_sin_cache.chunk(2, dim=-1)
        heads = backend.randn(5, 4, 64), backend.randn(5, 2, 64)
        return Call(module, heads, (*tables, torch.arange(5, device=backend.device)))
    rows = tuple(backend.randn(5, 256) for _ in range(2 if op.endswith("rms_norm") else 1))
    return Call(module, rows)


@on_a_gpu
@pytest.mark.parametrize("op", OPS)
def test_a_captured_graph_gives_the_same_bits(backend: Backend, op: str) -> None:
    captured, other = call_of(backend, op), call_of(backend, op)
    wanted = captured.with_(other.moving)(bound(backend, op))  # and compiles the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = captured(bound(backend, op))
    for place, numbers in zip(captured.moving, other.moving, strict=True):
        place.copy_(numbers)
    graph.replay()
    assert all(torch.equal(got, bits) for got, bits in zip(results, wanted, strict=True))


@on_a_gpu
@pytest.mark.parametrize("op", OPS)
def test_dynamo_traces_the_op_without_a_break(backend: Backend, op: str) -> None:
    call = call_of(backend, op)
    wanted = call.with_(call.moving)(bound(backend, op))  # and compiles the kernels
    torch.compiler.reset()
    got = call(torch.compile(bound(backend, op), fullgraph=True, backend="eager"))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1.6e-2, atol=1e-5)  # sgl_kernel has other norms for compiled code


@on_a_gpu
@pytest.mark.parametrize("op", OPS)
def test_the_host_does_not_wait_for_the_device(backend: Backend, op: str) -> None:
    call = call_of(backend, op)
    call.with_(call.moving)(bound(backend, op))  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(bound(backend, op))
    finally:
        torch.cuda.set_sync_debug_mode("default")
