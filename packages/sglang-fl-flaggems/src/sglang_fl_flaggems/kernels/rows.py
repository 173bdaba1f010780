"""Tensors as rows, and the vectors that go with every row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def parameter(obj: Any, name: str) -> torch.Tensor:
    """``getattr(obj, name)``, without the search that a torch.nn.Module makes of it, which takes ten times as long."""
    found = getattr(obj, "_parameters", _NOTHING).get(name)
    return getattr(obj, name) if found is None else found


def form(vector: torch.Tensor | None) -> tuple[Any, ...] | None:
    """All of a vector that a kernel depends on, but for its values."""
    if vector is None:
        return None
    return vector.numel(), vector.is_contiguous(), vector.dtype, vector.get_device()


def vector(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``values``, contiguous. Raises ValueError unless there is one for each column of x ``[..., d]``."""
    if values.numel() != x.shape[-1]:
        msg = f"{values.numel()} weights for {x.shape[-1]} columns"
        raise ValueError(msg)
    return values.contiguous()


def require_floats(x: torch.Tensor) -> None:
    """Raises TypeError for a dtype to which no result could be rounded."""
    if not x.dtype.is_floating_point:
        msg = f"the dtype is {x.dtype}, which is none of floating point numbers"
        raise TypeError(msg)


def require_shape(residual: torch.Tensor, x: torch.Tensor) -> None:
    """Raises ValueError for a residual of another shape than x."""
    if residual.shape != x.shape:
        msg = f"the residual has shape {tuple(residual.shape)}, not that of x, {tuple(x.shape)}"
        raise ValueError(msg)


def dense(rows: torch.Tensor) -> torch.Tensor:
    """rows ``[T, d]``, or a copy where their columns are not one element apart. Raises TypeError for integers."""
    require_floats(rows)
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def writable(rows: torch.Tensor) -> torch.Tensor:
    """As :func:`dense`, but a copy, too, where rows share memory and so cannot be overwritten.

    A lone row whose stride is so is copied as well: a launch for it is made again for others of that stride.
    """
    rows = dense(rows)
    return rows if rows.stride()[0] >= rows.shape[1] else rows.clone(memory_format=torch.contiguous_format)


def in_shape(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x itself where ``rows`` has become of it in place; else ``rows`` in x's shape."""
    return x if rows.data_ptr() == x.data_ptr() else rows.view(x.shape)
