"""The kernels that SGLang itself runs on CUDA, from where SGLang 0.5.17 to 0.5.23 and their sgl_kernel keep them.

No other module imports either. Each function is called once, when the ops that need its kernels are first bound: in a
model worker, which has imported both by then. What cannot be imported is an ImportError that says why.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

Kernel = Callable[..., Any]
Launcher = Callable[..., Kernel]
"""Gives a kernel as SGLang's op launches it. The op goes through torch's dispatcher, which takes the host longer than
the launch; who looks at ops needs it: see ``observers``. From 0.5.23 on SGLang, too, goes past it in eager calls."""


class Activations(NamedTuple):
    """``(input, out=None) -> out``: input ``[..., 2d]``, contiguous, d a multiple of 16 bytes.

    SGLang compiles them for the device, and takes sgl_kernel's where d is no multiple of the device's widest vector.

    ``launcher(dtype)`` gives what they launch, ``(input, out, name)``: ``[n, 2d]``, ``[n, d]``, and the name without
    ``_and_mul``. It is None where SGLang chooses between two kernels at each call, or logs its ops.
    """

    silu_and_mul: Kernel
    gelu_and_mul: Kernel
    gelu_tanh_and_mul: Kernel
    launcher: Launcher | None


class Norms(NamedTuple):
    """sgl_kernel's: ``rmsnorm(input, weight, eps) -> out`` and ``fused_add_rmsnorm(input, residual, weight, eps)``.

    Rows ``[n, d]`` in half precision, the weight in the same dtype, which nothing checks. The fused ones put the norm
    into input and the sum into residual. The gemma ones multiply by ``1 + weight``.
    """

    rmsnorm: Kernel
    fused_add_rmsnorm: Kernel
    gemma_rmsnorm: Kernel
    gemma_fused_add_rmsnorm: Kernel


class Rotaries(NamedTuple):
    """Both in place, on query and key ``[T, H, R]`` with one stride from head to head.

    ``rotate(q, k, cos_sin_cache, positions, *, is_neox)``: the cache in float32, and so the arithmetic.
    ``rotate_in_dtype(positions, query, key, head_size, cos_sin_cache, is_neox)``: the cache in query's dtype, and so
    the arithmetic; positions in int64, which nothing checks.
    ``launcher(is_neox, R, k_dtype, q_dtype)`` gives what ``rotate`` launches, ``(q, k, cos_sin_cache, positions)``.
    It is None where SGLang logs its ops.
    """

    rotate: Kernel
    rotate_in_dtype: Kernel
    launcher: Launcher | None


def activations() -> Activations:
    """The gated activations. Raises ImportError."""
    with _explained():
        import torch  # noqa: PLC0415 - as below

        # SGLang asks at each call whether its own kernels can have the width. Before compute capability 10 they can
        # have any multiple of 16 bytes, and no other is accepted here.
        if torch.cuda.get_device_capability() < (10, 0):
            from sglang.kernels.ops.activation import activation  # noqa: PLC0415 - SGLang's, and starts CUDA

            launcher = _launcher(activation.activation_module, "run_activation")
        else:
            from sglang.srt.layers import activation  # noqa: PLC0415 - as above

            launcher = None
        return Activations(activation.silu_and_mul, activation.gelu_and_mul, activation.gelu_tanh_and_mul, launcher)


def norms() -> Norms:
    """The RMS norms. Raises ImportError."""
    with _explained():
        from sgl_kernel import (  # noqa: PLC0415 - starts CUDA
            fused_add_rmsnorm,
            gemma_fused_add_rmsnorm,
            gemma_rmsnorm,
            rmsnorm,
        )
    return Norms(rmsnorm, fused_add_rmsnorm, gemma_rmsnorm, gemma_fused_add_rmsnorm)


def layer_norm() -> Kernel | None:
    """flashinfer's layer norm where SGLang uses it, ``(input, gamma, beta, eps) -> out``; None where it does not.

    input ``[n, d]`` in bfloat16, contiguous, which nothing checks; gamma and beta in float32. Raises ImportError.
    """
    with _explained():
        from sglang.srt.layers import layernorm  # noqa: PLC0415 - SGLang's, and starts CUDA
    return getattr(layernorm, "layernorm", None)


def rotaries() -> Rotaries:
    """The rotary embeddings. Raises ImportError."""
    with _explained():
        from sglang.kernels.ops.attention.rope import (  # noqa: PLC0415 - SGLang's, and starts CUDA
            _jit_fused_rope_module,
            apply_rope_inplace,
            rotary_embedding_with_key,
        )
    return Rotaries(apply_rope_inplace, rotary_embedding_with_key, _launcher(_jit_fused_rope_module, "run_rope"))


def _launcher(compiled: Kernel, name: str) -> Launcher | None:
    """The kernel ``name`` of the modules that SGLang's ``compiled`` gives, unless its users have its ops logged."""
    is_logged = os.environ.get("SGLANG_KERNEL_API_LOGLEVEL", "0") != "0"
    return None if is_logged else cache(lambda *which: getattr(compiled(*which), name))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a library that does not fit raises what it likes
        msg = f"{_installed('sglang')} with {_installed('sglang-kernel')}: {cause(error)}"
        raise ImportError(msg) from error


def cause(error: BaseException) -> str:
    """What went wrong, in one line. sgl_kernel tells a page, with what it tried as a list."""
    lines = str(error).splitlines() or [""]
    listed = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return listed[0] if listed else f"{type(error).__name__}: {lines[0]}"


def _installed(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} of an unknown version"
