"""What a seeded fault is, and right parts to make wrong functions of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from sglang_fl.records import BackendImplKind, OpImpl

FAULTS: list[Fault] = []


@dataclass(frozen=True)
class Fault:
    """A faulty implementation.

    Attributes:
        fn: its function.
        op: the op that it serves.
        caught_by: the name of the test that must catch it.
        parameters: what that test takes besides the op.
        record: fields of its record.
    """

    fn: Callable[..., Any]
    op: str
    caught_by: str
    parameters: tuple[Any, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def impl(self) -> OpImpl:
        """Its record."""
        named = {"op": self.op, "impl_id": "vendor.faulty", "kind": BackendImplKind.VENDOR, "vendor": "faulty"}
        return OpImpl(**named, fn=self.fn, **self.record)

    def __str__(self) -> str:
        return self.fn.__name__


def fault(op: str, caught_by: str, *parameters: Any, **record: Any) -> Callable[[Callable[..., Any]], Any]:
    """Registers a faulty function of ``op``."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(fn, op, caught_by, parameters, record))
        return fn

    return register


def silu(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(x.dtype)


def rms(total: torch.Tensor, obj: Any) -> torch.Tensor:
    """In float32."""
    wide = total.float()
    mean_square = wide.pow(2).mean(-1, keepdim=True)
    return wide * torch.rsqrt(mean_square + obj.variance_epsilon) * obj.weight.float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position_ids: Any, interleaved: bool) -> torch.Tensor:
    cos, sin = (table[position_ids.long()].unsqueeze(1).float() for table in (cos, sin))
    pairs, dim = ((-1, 2), -1) if interleaved else ((2, -1), -2)
    first, second = x.float().unflatten(-1, pairs).unbind(dim)
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim)
    return turned.flatten(-2).to(x.dtype)
