"""Gives each layer its function, once.

SGLang asks a layer for its forward when it is built (0.5.17) or first called. It gets a :class:`Deferred`, which is
replaced by the bound forward when the model has loaded, and that by the implementation's own function after the
layer's first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from sglang_fl.adapter.bridges import BRIDGES, Bridge
from sglang_fl.adapter.bridges.base import Forward
from sglang_fl.dispatch import Dispatcher
from sglang_fl.layers import SUBCLASSES, WRAPPERS
from sglang_fl.oot import left_by_user, left_to_kernels
from sglang_fl.ops import NORMS
from sglang_fl.probation import is_capturing
from sglang_fl.records import Platform
from sglang_fl.settings import Settings

_BY_TARGET = {bridge.target: bridge for bridge in BRIDGES}


@dataclass(frozen=True)
class Binding:
    """What became of one layer.

    Attributes:
        layer_class: its class's name.
        op: the op that its class stands for.
        kept: why it keeps SGLang's own forward, or None when the op serves it.
        meant: it is meant so, by the user or by the platform, and there is nothing to complain of.
    """

    layer_class: str
    op: str
    kept: str | None = None
    meant: bool = False


class Binder:
    """Decides what serves a layer, and binds it.

    Args:
        dispatcher: where the ops' functions come from.
        settings: ``oot_blacklist`` and ``oot_whitelist`` are obeyed here.
        platform: where SGLang has kernels of its own, the reference ops do not take their place unasked.
    """

    def __init__(self, dispatcher: Dispatcher, settings: Settings, platform: Platform) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._platform = platform
        self._bindings: WeakKeyDictionary[torch.nn.Module, Binding] = WeakKeyDictionary()
        self._left: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
        self.batch_invariant = False  # as the server is told; SGLang enters the mode when the model has loaded

    def forward_for(self, layer: torch.nn.Module, own: Forward) -> Forward:
        """What ``layer`` is to call instead of ``own``, its forward by SGLang's own choice."""
        bridge = bridge_of(type(layer))
        return own if bridge is None else Deferred(self, bridge, layer, own)

    def leave(self, layer: torch.nn.Module, reason: str) -> None:
        """Has ``layer``, which is not bound yet, keep SGLang's own forward."""
        self._left[layer] = reason

    def bind(self, bridge: Bridge, layer: torch.nn.Module, own: Forward) -> Forward:
        """Binds ``layer``, remembers how, and returns its forward."""
        binding = self._decide(bridge, layer)
        self._bindings[layer] = binding
        forward = own if binding.kept else bridge.forward(layer, self._starter(binding.op, bridge, layer, own), own)
        layer._forward_method = forward
        return forward

    def binding(self, layer: torch.nn.Module) -> Binding | None:
        """What became of ``layer``: None for a layer of no bridged class."""
        bridge = bridge_of(type(layer))
        if bridge is None or layer in self._bindings:
            return self._bindings.get(layer)
        binding = self._decide(bridge, layer)
        return binding if binding.kept else replace(binding, kept="SGLang pins its forward")

    def _decide(self, bridge: Bridge, layer: torch.nn.Module) -> Binding:
        name, op = type(layer).__name__, bridge.op_of(layer)
        if op is None:
            return Binding(name, bridge.class_name, "no op computes this variant")
        left = left_by_user((op, *(cls.__name__ for cls in _up_to(bridge, type(layer)))), self._settings)
        left = left or self._left.get(layer)
        if left is not None:
            return Binding(name, op, left, meant=True)
        overridden = next(_overridden(bridge, type(layer)), None)
        if overridden is not None:
            return Binding(name, op, f"it has a {overridden} of its own", meant=True)  # it is another op
        slower = left_to_kernels(self._dispatcher.select(op), self._platform)
        if slower is not None:
            return Binding(name, op, slower, meant=True)
        if self.batch_invariant and op in NORMS:
            return Binding(name, op, "deterministic inference: SGLang's norms do not depend on the batch", meant=True)
        return Binding(name, op, bridge.own_reason(layer))

    def _starter(self, op: str, bridge: Bridge, layer: Any, own: Forward) -> Forward:
        compiled = self._dispatcher.for_compiler(op)

        def start(obj: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if compiled is not None and torch.compiler.is_compiling():
                return compiled(obj, x, *args, **kwargs)
            with self._dispatcher.policy:  # a block around this call rules `call_op`, not the layer from now on
                chain = self._dispatcher.chain(op, x)
            result = chain(obj, x, *args, **kwargs)
            if x.numel() and not is_capturing(x.device):
                layer._forward_method = bridge.forward(layer, chain.function(), own)
            return result

        return start


class Deferred:
    """A layer's forward until it is bound."""

    def __init__(self, binder: Binder, bridge: Bridge, layer: torch.nn.Module, own: Forward) -> None:
        self._binder, self._bridge, self._layer, self._own = binder, bridge, layer, own

    def bind(self) -> Forward:
        """Binds the layer now."""
        return self._binder.bind(self._bridge, self._layer, self._own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.bind()(*args, **kwargs)


def bridge_of(cls: type) -> Bridge | None:
    """The bridge of the nearest class among ``cls`` and its bases that has one."""
    return next((_BY_TARGET[name] for base in cls.__mro__ if (name := _target(base)) in _BY_TARGET), None)


def _up_to(bridge: Bridge, cls: type) -> Iterator[type]:
    """``cls`` and its bases, down to the bridge's own class."""
    for base in cls.__mro__:
        yield base
        if _target(base) == bridge.target:
            return


def _overridden(bridge: Bridge, cls: type) -> Iterator[str]:
    """The forwards of the bridge's class that ``cls`` has otherwise: then it is another op."""
    *below, base = _up_to(bridge, cls)
    for name in vars(base):
        if name.startswith("forward_") and any(name in vars(other) for other in below):
            yield name
    calls_ours = (*SUBCLASSES.get(bridge.class_name, ()), *WRAPPERS)
    if any("forward" in vars(other) and other.__name__ not in calls_ours for other in below):
        yield "forward"  # it may go past what we bind, as Llama4VisionRotaryEmbedding's does


def _target(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
