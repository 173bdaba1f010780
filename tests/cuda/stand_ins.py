"""Kernels for a machine without CUDA: SGLang's and sgl_kernel's own signatures, with PyTorch behind them.

Each is called by the names that the installed source gives its parameters, so a wrong order of arguments is a wrong
result, and insists on all that the real one takes for granted.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from sglang_fl.reference import activation, normalization, rotary

Kernel = Callable[..., Any]
ACTIVATIONS = ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul")


def source_of(package: str, file: str) -> ast.Module:
    """A file of an installed package, parsed: to import these packages needs CUDA."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed"
    return ast.parse((Path(spec.origin).parent / file).read_text("utf-8"))


def signature_of(tree: ast.Module, name: str) -> inspect.Signature:
    """The signature of the function ``name``, wherever in the module it is defined, without annotations."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(functions) == 1, f"{len(functions)} functions {name}"
    args = functions[0].args
    assert not args.posonlyargs and not args.vararg and not args.kwarg
    first = len(args.args) - len(args.defaults)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(
            arg.arg, kind, default=ast.literal_eval(args.defaults[i - first]) if i >= first else inspect.Parameter.empty
        )
        for i, arg in enumerate(args.args)
    ]
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        parameters.append(inspect.Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, default=value))
    return inspect.Signature(parameters)


def by_its_names(tree: ast.Module, name: str, body: Kernel) -> Kernel:
    """``body``, called as the function ``name`` of the source is."""
    signature = signature_of(tree, name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(**bound.arguments)

    return kernel


def _is_aligned(tensor: torch.Tensor, size: int = 16) -> bool:
    return tensor.data_ptr() % size == 0


NO_ROUTING = {
    "expert_ids": None,
    "expert_step": 1,
    "sorted_token_ids": None,
    "num_tokens_post_padded": None,
    "num_valid_tokens": 0,
}
"""What SGLang's own activations can be given besides, and what it is when it is not given."""


def _act_and_mul(op: Kernel) -> Kernel:
    def kernel(input: torch.Tensor, out: torch.Tensor | None, **routing: Any) -> torch.Tensor:  # noqa: A002 - its name
        assert routing.items() <= NO_ROUTING.items()
        assert input.numel() and input.is_contiguous() and _is_aligned(input, 32)
        assert input.shape[-1] // 2 * input.itemsize % 16 == 0
        result: torch.Tensor = op(None, input)
        return result if out is None else out.copy_(result)

    return kernel


LAUNCHED = {
    "silu": activation.silu_and_mul,
    "gelu": activation.gelu_and_mul,
    "gelu_tanh": activation.gelu_tanh_and_mul,
}
"""The activations by the names under which they are launched."""


def _activation_module(dtype: torch.dtype, fast_math: bool) -> SimpleNamespace:
    assert fast_math  # as SGLang's own layers have it

    def run_activation(rows: torch.Tensor, out: torch.Tensor, name: str) -> None:
        assert rows.dim() == out.dim() == 2 and out.shape == (rows.shape[0], rows.shape[1] // 2)
        assert rows.dtype is out.dtype is dtype and out.is_contiguous()
        _act_and_mul(LAUNCHED[name])(rows, out)

    return SimpleNamespace(run_activation=run_activation)


def _rope_module(is_neox: bool, rope_dim: int, dtype: torch.dtype, q_dtype: torch.dtype) -> SimpleNamespace:
    def run_rope(q: torch.Tensor, k: torch.Tensor, cos_sin_cache: torch.Tensor, positions: torch.Tensor) -> None:
        assert (k.dtype, q.dtype, cos_sin_cache.shape[1]) == (dtype, q_dtype, rope_dim)
        _rotate(q, k, cos_sin_cache, positions, is_neox, rope_dim)

    return SimpleNamespace(run_rope=run_rope)


def _layer(weight: torch.Tensor, eps: float) -> SimpleNamespace:
    return SimpleNamespace(weight=weight, variance_epsilon=eps)


def _check_rows(rows: torch.Tensor, weight: torch.Tensor) -> None:
    assert rows.dim() == 2 and rows.numel() and rows.stride(1) == 1 and rows.dtype is weight.dtype
    assert rows.dtype in (torch.float16, torch.bfloat16)
    assert weight.is_contiguous() and weight.shape == rows.shape[1:] and _is_aligned(weight)
    if rows.is_contiguous():
        assert _is_aligned(rows, math.gcd(64, rows.shape[1] * rows.itemsize))  # 128 on CUDA; a CPU's memory has but 64
    else:
        assert _is_aligned(rows) and rows.stride(0) * rows.itemsize % 16 == 0 and rows.stride(0) >= rows.shape[1]


def _rms_norm(op: Kernel) -> Kernel:
    def kernel(
        input: torch.Tensor,  # noqa: A002 - its name
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor | None,
        enable_pdl: bool | None,
    ) -> torch.Tensor:
        _check_rows(input, weight)
        result: torch.Tensor = op(_layer(weight, eps), input)
        return result if out is None else out.copy_(result)

    return kernel


def _add_rms_norm(op: Kernel) -> Kernel:
    def kernel(
        input: torch.Tensor,  # noqa: A002 - its name
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        enable_pdl: bool | None,
    ) -> None:
        _check_rows(input, weight)
        _check_rows(residual, weight)
        assert input.data_ptr() != residual.data_ptr()
        y, total = op(_layer(weight, eps), input, residual)
        input.copy_(y)
        residual.copy_(total)

    return kernel


def _layer_norm(input: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:  # noqa: A002
    assert input.dim() == 2 and input.is_contiguous() and input.numel() and _is_aligned(input)
    assert (input.dtype, gamma.dtype, beta.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    layer = SimpleNamespace(weight=gamma, bias=beta, variance_epsilon=eps, elementwise_affine=True, use_bias=True)
    return normalization.layer_norm(layer, input)


def _rotate(
    q: torch.Tensor, k: torch.Tensor, cos_sin_cache: torch.Tensor, positions: torch.Tensor, is_neox: bool, rope_dim: int
) -> None:
    assert cos_sin_cache.dtype is torch.float32 and cos_sin_cache.is_contiguous()
    assert rope_dim in (0, cos_sin_cache.shape[1])
    for heads in (q, k):
        assert heads.stride(2) == 1 and heads.shape[2] == cos_sin_cache.shape[1]
        assert heads.shape[1] == 1 or heads.stride(1) == q.stride(1)  # SGLang's matcher asks no stride of one head
        assert _is_aligned(heads) and all(
            stride * heads.itemsize % 16 == 0 for stride in (heads.stride(0), q.stride(1))
        )
    _rotate_in_place(q, k, cos_sin_cache, positions, is_neox)


def _rotate_in_dtype(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
) -> None:
    assert cos_sin_cache.dtype is query.dtype is key.dtype and cos_sin_cache.is_contiguous()
    assert query.shape[2] == key.shape[2] == head_size == cos_sin_cache.shape[1]
    assert query.stride(1) == key.stride(1) and query.shape[1] % key.shape[1] == 0
    _rotate_in_place(query, key, cos_sin_cache, positions, is_neox)


def _rotate_in_place(
    q: torch.Tensor, k: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor, is_neox: bool
) -> None:
    assert (
        positions.dtype is torch.int64 and positions.is_contiguous() and positions.shape == q.shape[:1] == k.shape[:1]
    )
    cos, sin = cache.chunk(2, dim=-1)
    for heads, turned in zip(
        (q, k), rotary.rotary_embedding(None, q, k, cos, sin, positions, not is_neox), strict=True
    ):
        heads.copy_(turned)


def modules() -> dict[str, ModuleType]:
    """The modules that ``kernels.py`` imports from, by name."""
    norms = {
        "rmsnorm": _rms_norm(normalization.rms_norm),
        "gemma_rmsnorm": _rms_norm(normalization.gemma_rms_norm),
        "fused_add_rmsnorm": _add_rms_norm(normalization.rms_norm),
        "gemma_fused_add_rmsnorm": _add_rms_norm(normalization.gemma_rms_norm),
    }
    acts = {name: _act_and_mul(getattr(activation, name)) for name in ACTIVATIONS}
    launched = {"activation_module": _activation_module}
    rope = {
        "apply_rope_inplace": _rotate,
        "rotary_embedding_with_key": _rotate_in_dtype,
        "_jit_fused_rope_module": _rope_module,
    }
    found = {
        "sgl_kernel": _module("sgl_kernel", "elementwise.py", norms),
        "sglang.srt.layers.activation": _module("sglang", "srt/layers/activation.py", acts),
        "sglang.srt.layers.layernorm": _module("sglang", "srt/layers/layernorm.py", {"layernorm": _layer_norm}),
        "sglang.kernels.ops.activation.activation": _module(
            "sglang", "kernels/ops/activation/activation.py", {**acts, **launched}
        ),
        "sglang.kernels.ops.attention.rope": _module("sglang", "kernels/ops/attention/rope.py", rope),
    }
    for name in ("sglang.srt.layers", "sglang.kernels.ops.activation"):
        package = ModuleType(name)
        children = {child: module for child, module in found.items() if child.startswith(f"{name}.")}
        vars(package).update({child.rpartition(".")[2]: module for child, module in children.items()})
        found[name] = package
    return found


def _module(package: str, file: str, bodies: dict[str, Kernel]) -> ModuleType:
    """A module with ``bodies``, each called as the function of its name in the package's file is."""
    module, tree = ModuleType(file), source_of(package, file)
    vars(module).update({name: by_its_names(tree, name, body) for name, body in bodies.items()})
    return module
