"""Tensors with memory around them that nobody may touch."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import torch

GUARD = 64
"""Elements on either side of a tensor, of which a row in wider rows has half. Multiples of 16 bytes in any dtype."""


class Layout(enum.Enum):
    """How a tensor lies in its memory."""

    CONTIGUOUS = "contiguous"
    WIDER_ROWS = "in wider rows"
    UNALIGNED_ROWS = "in unaligned wider rows"
    TRANSPOSED = "transposed"


STRIDED = tuple(layout for layout in Layout if layout is not Layout.CONTIGUOUS)


@dataclass(frozen=True)
class Placed:
    """A tensor in memory of its own. What of the memory is not the tensor's is NaN, or 0 among integers.

    Attributes:
        tensor: a view of ``memory``.
        memory: one dimension. Several tensors may share it.
        layout: for people.
    """

    tensor: torch.Tensor
    memory: torch.Tensor
    layout: Layout = Layout.CONTIGUOUS

    def __repr__(self) -> str:
        dtype = str(self.tensor.dtype).removeprefix("torch.")
        layout = "" if self.layout is Layout.CONTIGUOUS else f" {self.layout.value}"
        return f"{dtype}{list(self.tensor.shape)}{layout}"

    def as_shape(self, *shape: int) -> Placed:
        """The same tensor with its last dimension split, so that its shape is ``shape``."""
        return Placed(self.tensor.unflatten(-1, shape[self.tensor.dim() - 1 :]), self.memory, self.layout)

    def within(self, memory: torch.Tensor) -> Placed:
        """The same place in another memory."""
        tensor = self.tensor
        view = memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        return Placed(view, memory, self.layout)


def place(values: torch.Tensor, layout: Layout = Layout.CONTIGUOUS) -> Placed:
    """``values``, on the CPU, laid out in memory of their own."""
    shape, strides, start = tuple(values.shape), _strides(tuple(values.shape), layout), _start(layout)
    reach = max(size * stride for size, stride in zip(shape, strides, strict=True))
    filler = math.nan if values.is_floating_point() else 0
    memory = torch.full((start + reach + 2 * GUARD,), filler, dtype=values.dtype)
    view = memory.as_strided(shape, strides, start)
    view.copy_(values)
    return Placed(view, memory, layout)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one shape and dtype hold the same bits, NaN or not. On the CPU."""
    return _bits(one) == _bits(other)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    as_integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().cpu().contiguous().view(as_integers)


def _start(layout: Layout) -> int:
    return {Layout.WIDER_ROWS: GUARD + GUARD // 2, Layout.UNALIGNED_ROWS: GUARD + 2}.get(layout, GUARD)


def _strides(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    if layout is Layout.CONTIGUOUS:
        return _packed(shape)
    if layout is Layout.TRANSPOSED:
        return (2,) if len(shape) == 1 else tuple(reversed(_packed(shape[::-1])))
    return _packed((*shape[:-1], shape[-1] + (GUARD if layout is Layout.WIDER_ROWS else 5)))


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
