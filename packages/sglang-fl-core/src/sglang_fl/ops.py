"""The op contracts: what each op is called with, what it may overwrite, and how near to exact it must be.

An op's function takes ``obj`` first: the layer that calls it. It reads weights and constants from there, so
that a vendor's function written for another framework's layer of the same attributes works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Signature, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from sglang_fl.errors import DispatchError, nearest

if TYPE_CHECKING:
    import torch

# The relative error that rounding the result once to each dtype, after fp32 arithmetic, can explain.
TOLERANCE: Mapping[str, float] = MappingProxyType(
    {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2, "float64": 1e-5}
)


@dataclass(frozen=True)
class OpContract:
    """One op.

    Attributes:
        name: the op.
        signature: what an implementation is called with.
        activations: the tensors that flow through the op; the first decides the call's dtype and device.
        reads: the attributes of ``obj`` that an implementation may rely on.
        overwrites: given the call's bound arguments, the names of those that it may overwrite.
        check: given the bound arguments and the result, the reason why the result is illegal, or None.
        tolerance: dtype name -> largest relative error against float64.
    """

    name: str
    signature: Signature
    activations: tuple[str, ...]
    reads: tuple[str, ...]
    overwrites: Callable[[Mapping[str, Any]], tuple[str, ...]]
    check: Callable[[Mapping[str, Any], Any], str | None]
    tolerance: Mapping[str, float] = field(default_factory=lambda: TOLERANCE)

    @property
    def overwritable(self) -> tuple[str, ...]:
        """What an implementation may overwrite in a call with every argument."""
        return self.overwrites(dict.fromkeys(self.signature.parameters, True))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The call's arguments by name, defaults filled in. Raises TypeError for an illegal call."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


class ActAndMul(Protocol):
    """``act(x[..., :d]) * x[..., d:]``: x ``[..., 2d]`` -> ``[..., d]`` in x's dtype. x is not overwritten."""

    def __call__(self, obj: Any, x: torch.Tensor) -> torch.Tensor: ...


class RmsNorm(Protocol):
    """``x / rms(x) * obj.weight`` over the last dimension, ``rms(x) = sqrt(mean(x²) + obj.variance_epsilon)``.

    x ``[..., d]``, residual of x's shape. Returns y, or ``(y, x + residual)``, in x's dtype; the norm is of the
    sum. With a residual both inputs may be overwritten. For ``gemma_rms_norm`` the factor is ``1 + obj.weight``.
    """

    def __call__(self, obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any: ...


class LayerNorm(Protocol):
    """Layer norm over the last dimension: x ``[..., d]`` -> the same shape and dtype. x is not overwritten.

    ``obj.weight`` counts when ``obj.elementwise_affine``, ``obj.bias`` when ``obj.use_bias``.
    """

    def __call__(self, obj: Any, x: torch.Tensor) -> torch.Tensor: ...


class RotaryEmbedding(Protocol):
    """Rotates query ``[T, H, R]`` and key ``[T, K, R]`` (or None) by position; returns ``(query, key)``.

    cos and sin ``[max_position, R / 2]``, in any floating dtype: the halves of ``obj.cos_sin_cache``, side by side
    in its last dimension. position_ids ``[T]``, integers. Neighbours are paired when ``rotary_interleaved`` (GPT-J),
    halves otherwise (NeoX). query and key may be views into rows wider than R, and share no element; with ``inplace``
    they may be overwritten, and without it they may not.
    """

    def __call__(
        self,
        obj: Any,
        query: torch.Tensor,
        key: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position_ids: torch.Tensor,
        rotary_interleaved: bool = False,
        inplace: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


def _signature(protocol: type) -> Signature:
    called = signature(protocol.__call__)
    return called.replace(parameters=list(called.parameters.values())[1:])


def _nothing(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


def _norm_overwrites(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return () if arguments["residual"] is None else ("x", "residual")


def _rotary_overwrites(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return ("query", "key") if arguments["inplace"] else ()


def _like(name: str, result: Any, shape: tuple[int, ...], like: torch.Tensor) -> str | None:
    got_shape, got_dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if got_shape is None:
        return f"{name} is {type(result).__name__}, not a tensor"
    if tuple(got_shape) != shape:
        return f"{name} has shape {tuple(got_shape)}, not {shape}"
    if got_dtype != like.dtype:
        return f"{name} has dtype {got_dtype}, not {like.dtype}"
    if result.device != like.device:
        return f"{name} is on {result.device}, not {like.device}"
    return None


def _check_act_and_mul(arguments: Mapping[str, Any], result: Any) -> str | None:
    x = arguments["x"]
    return _like("the result", result, (*x.shape[:-1], x.shape[-1] // 2), x)


def _check_same(arguments: Mapping[str, Any], result: Any) -> str | None:
    x = arguments["x"]
    return _like("the result", result, tuple(x.shape), x)


def _check_norm(arguments: Mapping[str, Any], result: Any) -> str | None:
    if arguments["residual"] is None:
        return _check_same(arguments, result)
    return _check_pair(("the norm", "the sum"), (arguments["x"], arguments["x"]), result)


def _check_rotary(arguments: Mapping[str, Any], result: Any) -> str | None:
    return _check_pair(("the query", "the key"), (arguments["query"], arguments["key"]), result)


def _check_pair(names: tuple[str, str], like: tuple[Any, Any], result: Any) -> str | None:
    if not isinstance(result, tuple | list) or len(result) != len(names):
        return f"the result is {type(result).__name__}, not a pair"
    for name, wanted, got in zip(names, like, result, strict=True):
        if wanted is None:
            reason = None if got is None else f"{name} is {type(got).__name__}, not None"
        else:
            reason = _like(name, got, tuple(wanted.shape), wanted)
        if reason is not None:
            return reason
    return None


_X = ("x",)
_NORM_READS = ("weight", "variance_epsilon")

CONTRACTS: Mapping[str, OpContract] = MappingProxyType(
    {
        contract.name: contract
        for contract in (
            OpContract("silu_and_mul", _signature(ActAndMul), _X, (), _nothing, _check_act_and_mul),
            OpContract("gelu_and_mul", _signature(ActAndMul), _X, (), _nothing, _check_act_and_mul),
            OpContract("gelu_tanh_and_mul", _signature(ActAndMul), _X, (), _nothing, _check_act_and_mul),
            OpContract("rms_norm", _signature(RmsNorm), ("x", "residual"), _NORM_READS, _norm_overwrites, _check_norm),
            OpContract(
                "gemma_rms_norm", _signature(RmsNorm), ("x", "residual"), _NORM_READS, _norm_overwrites, _check_norm
            ),
            OpContract(
                "layer_norm",
                _signature(LayerNorm),
                _X,
                (*_NORM_READS, "bias", "elementwise_affine", "use_bias"),
                _nothing,
                _check_same,
            ),
            OpContract(
                "rotary_embedding",
                _signature(RotaryEmbedding),
                ("query", "key", "position_ids"),
                ("head_size", "rotary_dim", "is_neox_style", "cos_sin_cache"),
                _rotary_overwrites,
                _check_rotary,
            ),
        )
    }
)

NORMS = ("rms_norm", "gemma_rms_norm", "layer_norm")
"""The ops that add a row up, in an order that may depend on how many rows there are."""


def contract_of(op: str) -> OpContract:
    """The contract of ``op``. Raises DispatchError, with the nearest name, when there is no such op."""
    try:
        return CONTRACTS[op]
    except KeyError:
        raise DispatchError(
            "sglang-fl-core", asked=f"the op {op!r}", found="no such op", do=nearest(op, CONTRACTS)
        ) from None
