"""What Dynamo cannot trace, as ``torch.library`` custom ops that it need not look into.

Eager calls go straight to the function. Compiled code calls an op with plain operands instead: the tensors of the
call, and what the op's contract says that an implementation may read of the layer. What the contract lets an
implementation overwrite, the custom op overwrites, so that its schema says all that happens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.compiler import is_compiling

from sglang_fl.ops import contract_of

Function = Callable[..., Any]

_NAMESPACE = "sglang_fl"
_TYPES = {
    "weight": "Tensor?",
    "bias": "Tensor?",
    "variance_epsilon": "float",
    "elementwise_affine": "bool",
    "use_bias": "bool",
    "head_size": "int",
    "rotary_dim": "int",
    "is_neox_style": "bool",
    "cos_sin_cache": "Tensor",
}
"""The schema types of what contracts let an implementation read."""


def opaque(op: str, impl_id: str, fn: Function) -> Function:
    """``fn``, an implementation of ``op``, such that Dynamo sees a custom op in its place.

    The custom ops live as long as the function that is returned.
    """
    return _WRAPS[op](_CustomOps(op, impl_id), fn)


class _CustomOps:
    """Defines the custom ops of one implementation."""

    def __init__(self, op: str, impl_id: str) -> None:
        self._library = torch.library.Library(_NAMESPACE, "FRAGMENT")
        self._name = re.sub(r"\W", "_", f"{op}__{impl_id}", flags=re.ASCII)
        self._reads = contract_of(op).reads

    def define(self, operands: str, returns: str, run: Function, fake: Function) -> Function:
        """An op of ``operands`` and the layer's state; ``run`` and ``fake`` get a layer, and the operands."""
        state = "".join(f", {_TYPES[name]} {name}" for name in self._reads)
        name = self._defined(f"({operands}{state}) -> {returns}")
        self._library.impl(name, self._with_layer(run), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", self._with_layer(fake), lib=self._library)
        return getattr(getattr(torch.ops, _NAMESPACE), name).default  # type: ignore[no-any-return]

    def state(self, layer: Any) -> tuple[Any, ...]:
        """What the ops take of ``layer``, after their operands."""
        return tuple(getattr(layer, name, None) for name in self._reads)

    def _with_layer(self, fn: Function) -> Function:
        def call(*operands: Any) -> Any:
            taken = len(operands) - len(self._reads)
            layer = SimpleNamespace(**dict(zip(self._reads, operands[taken:], strict=True)))
            return fn(layer, *operands[:taken])

        return call

    def _defined(self, schema: str) -> str:
        """Defines an op, and returns its name: the implementation's, numbered where that is taken: by its other op, or
        by another dispatcher's, and in another thread perhaps at this moment."""
        n = 0
        while True:
            name = f"{self._name}_{n}" if n else self._name
            try:
                self._library.define(name + schema)
            except RuntimeError:
                if not hasattr(getattr(torch.ops, _NAMESPACE), name):
                    raise
                n += 1
            else:
                return name


def _wrap_act_and_mul(ops: _CustomOps, fn: Function) -> Function:
    op = ops.define(
        "Tensor x",
        "Tensor",
        lambda layer, x: _fresh(fn(layer, x), x),
        lambda layer, x: x.new_empty((*x.shape[:-1], x.shape[-1] // 2)),
    )

    def act_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
        return op(x) if is_compiling() else fn(obj, x)

    return act_and_mul


def _wrap_norm(ops: _CustomOps, fn: Function) -> Function:
    op = ops.define("Tensor x", "Tensor", lambda layer, x: _fresh(fn(layer, x), x), lambda layer, x: _like(x))

    def norm(obj: Any, x: torch.Tensor) -> torch.Tensor:
        return op(x, *ops.state(obj)) if is_compiling() else fn(obj, x)

    return norm


def _wrap_add_norm(ops: _CustomOps, fn: Function) -> Function:
    def add(layer: Any, x: torch.Tensor, residual: torch.Tensor) -> None:
        _overwrite((x, residual), fn(layer, x, residual))

    norm = _wrap_norm(ops, fn)
    op = ops.define("Tensor(a!) x, Tensor(b!) residual", "()", add, lambda *operands: None)

    def add_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        if not is_compiling():
            return fn(obj, x, residual)
        if residual is None:
            return norm(obj, x)
        op(x, residual, *ops.state(obj))
        return x, residual

    return add_norm


def _wrap_rotary(ops: _CustomOps, fn: Function) -> Function:
    def rotate(layer: Any, query: torch.Tensor, key: torch.Tensor | None, *tables: Any) -> None:
        _overwrite((query, key), fn(layer, query, key, *tables, True))

    op = ops.define(
        "Tensor(a!) query, Tensor(b!)? key, Tensor cos, Tensor sin, Tensor position_ids, bool rotary_interleaved",
        "()",
        rotate,
        lambda *operands: None,
    )

    def rotary_embedding(
        obj: Any,
        query: torch.Tensor,
        key: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position_ids: torch.Tensor,
        rotary_interleaved: bool = False,
        inplace: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not is_compiling():
            return fn(obj, query, key, cos, sin, position_ids, rotary_interleaved, inplace)  # type: ignore[no-any-return]
        if not inplace:
            query, key = query.clone(), None if key is None else key.clone()
        op(query, key, cos, sin, position_ids, rotary_interleaved, *ops.state(obj))
        return query, key

    return rotary_embedding


_WRAPS: dict[str, Callable[[_CustomOps, Function], Function]] = {
    "silu_and_mul": _wrap_act_and_mul,
    "gelu_and_mul": _wrap_act_and_mul,
    "gelu_tanh_and_mul": _wrap_act_and_mul,
    "rms_norm": _wrap_add_norm,
    "gemma_rms_norm": _wrap_add_norm,
    "layer_norm": _wrap_norm,
    "rotary_embedding": _wrap_rotary,
}


def _like(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)


def _fresh(result: torch.Tensor, *given: torch.Tensor | None) -> torch.Tensor:
    """A custom op's result: contiguous, as its fake says, and no part of what it was given."""
    storages = {tensor.untyped_storage().data_ptr() for tensor in given if tensor is not None}
    return result.clone() if result.untyped_storage().data_ptr() in storages else result.contiguous()


def _overwrite(targets: tuple[torch.Tensor | None, ...], results: tuple[torch.Tensor | None, ...]) -> None:
    """Puts into ``targets`` what an implementation returned, where it has not done so itself."""
    pairs = [(target, result) for target, result in zip(targets, results, strict=True) if result is not target]
    fresh = [
        (target, _fresh(result, *targets)) for target, result in pairs if target is not None and result is not None
    ]
    for target, result in fresh:
        target.copy_(result)
