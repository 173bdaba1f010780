"""One call of an op, and the tensors that one run of it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.calls.placed import Placed


class Layer:
    """A layer with the attributes that an op's contract promises, and no other."""

    def __init__(self, op: str, attributes: Mapping[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.__dict__["_op"] = op

    def __getattr__(self, name: str) -> Any:
        promised = ", ".join(f"obj.{one}" for one in CONTRACTS[self._op].reads) or "nothing of obj"
        msg = f"obj.{name} is read, but the contract of {self._op} promises {promised}"
        raise AttributeError(msg)


@dataclass(frozen=True, repr=False)
class Call:
    """A call, on the CPU. It is never run itself: what is run is a copy, :meth:`on` a device.

    Attributes:
        op: the op.
        layer: attribute of ``obj`` -> its value; a tensor is a Placed.
        inputs: argument -> its value; a tensor is a Placed.
    """

    op: str
    layer: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}={value!r}" for name, value in self.inputs.items())
        layer = ", ".join(f"obj.{name}={value!r}" for name, value in self.layer.items())
        return f"{self.op}({inputs}{'; ' if layer else ''}{layer})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # for hypothesis, which would print every number

    @property
    def dtype(self) -> torch.dtype:
        """The activations'."""
        dtype: torch.dtype = self.inputs[CONTRACTS[self.op].activations[0]].tensor.dtype
        return dtype

    def placed(self) -> Iterator[tuple[str, Placed]]:
        """Every tensor with its name."""
        named = [*self.inputs.items(), *((f"obj.{name}", value) for name, value in self.layer.items())]
        return ((name, value) for name, value in named if isinstance(value, Placed))

    def on(self, device: torch.device) -> Given:
        """A copy of everything on ``device``."""
        memories: dict[int, torch.Tensor] = {}

        def moved(value: Any) -> Any:
            if not isinstance(value, Placed):
                return value
            copy = memories.setdefault(id(value.memory), value.memory.to(device, copy=True))
            return value.within(copy)

        layer = {name: moved(value) for name, value in self.layer.items()}
        return Given(replace(self, layer=layer, inputs={name: moved(value) for name, value in self.inputs.items()}))

    def varied(self) -> Call:
        """The same call with other numbers in the activations and weights, and at other positions."""

        def other(name: str, value: Any) -> Any:
            if not isinstance(value, Placed) or name in ("cos", "sin", "cos_sin_cache"):
                return value
            changed = value.within(value.memory.clone())
            if name == "position_ids":  # counted from the other end of the tables
                changed.tensor.neg_().add_(self.inputs["cos"].tensor.shape[0] - 1)
            else:
                changed.tensor.mul_(-0.5).add_(0.125)
            return changed

        layer = {name: other(name, value) for name, value in self.layer.items()}
        return replace(self, layer=layer, inputs={name: other(name, value) for name, value in self.inputs.items()})


class Given:
    """What one run is given: it may change.

    Attributes:
        placed: the call with its tensors on the device.
        obj: the layer.
        arguments: the other arguments by name.
    """

    def __init__(self, placed: Call) -> None:
        self.placed = placed
        self.obj = Layer(placed.op, {name: _attribute(name, value) for name, value in placed.layer.items()})
        self.arguments = {name: _plain(value) for name, value in placed.inputs.items()}


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, Placed) else value


def _attribute(name: str, value: Any) -> Any:
    # As in a layer: weights are parameters, caches are buffers.
    return torch.nn.Parameter(_plain(value)) if name in ("weight", "bias") else _plain(value)
