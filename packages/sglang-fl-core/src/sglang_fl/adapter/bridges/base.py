"""What a bridge is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Forward = Callable[..., Any]

FUSED = "SGLang fuses it with the FP8 quantization of the linear behind it"
"""Why a layer whose result SGLang wants in FP8 keeps its own forward."""


@dataclass(frozen=True)
class Bridge:
    """How one SGLang layer class is served by an op.

    Attributes:
        target: the class, as ``"module:name"``.
        op_of: the op for a layer, or None where no op is that layer's.
        own_reason: why a layer as it was built must keep SGLang's own forward, or None.
        forward: ``(layer, fn, own) -> forward``: a function with the arguments of the layer's forward that calls
            ``fn`` with the op's, or ``own`` for what the op cannot express. Built once per layer.
    """

    target: str
    op_of: Callable[[Any], str | None]
    own_reason: Callable[[Any], str | None]
    forward: Callable[[Any, Forward, Forward], Forward]

    @property
    def class_name(self) -> str:
        """The class's bare name."""
        return self.target.rpartition(":")[2]


def always_op(op: str) -> Callable[[Any], str]:
    """``op`` for every layer."""
    return lambda layer: op


def never(layer: Any) -> None:
    """No reason against any layer."""
