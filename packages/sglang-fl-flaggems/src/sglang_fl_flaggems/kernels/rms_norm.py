"""RMS norm, with or without a residual, plain or as Gemma has it: in fp32, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
import triton.language as tl

from sglang_fl_flaggems.kernels.launch import MANY, VECTOR, Kernel, Relaunch, Tile, device_function, power_of_2
from sglang_fl_flaggems.kernels.rows import dense, form, in_shape, parameter, require_shape, vector, writable

Known = dict[Hashable, tuple[Relaunch, int]]
"""What a launch depends on -> what launches it again, and how many rows a program has."""

_WIDEST = 32768
"""A wider row does not fit in one program's registers: it is read twice."""


def config(n: int, tokens: int, *, has_residual: bool = False) -> Tile:
    """The tile for ``tokens`` rows of ``n`` elements, as measured on an H100."""
    block = min(power_of_2(n), _WIDEST)
    if tokens < MANY:  # as many warps as can load at once, but one alone needs not wait for others
        return Tile(1, block, 1 if block <= 1024 else min(block // 256, 16))
    rows = max(2048 // block, 1)
    warps = {1024: 1, 4096: 4 if has_residual else 8}.get(block, min(rows * block // 512, 16))
    return Tile(rows, block, warps)


def _norm(offset: float) -> Callable[..., Any]:
    """``x / rms(x) * (offset + obj.weight)``: x ``[..., d]`` -> y; with a residual of x's shape, ``(y, x + residual)``.

    Without a residual y is new. With one, y is written into x and the sum into residual, and these are returned; a
    copy of either is, where rows share memory, are not one stride apart, or hold another dtype than x.
    ValueError for shapes that do not fit, TypeError for integers.
    """
    known: Known = {}

    def norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        shape, weight, epsilon = x.shape, parameter(obj, "weight"), obj.variance_epsilon
        if len(shape) != 2:
            return _of_rows(norm, obj, x, residual)
        (tokens, n), address, factors = shape, x.data_ptr(), weight.data_ptr()
        key: Hashable = (n, x.stride(), x.dtype, x.get_device(), form(weight), tokens >= MANY)
        if residual is None:
            plan = None if (address | factors) % VECTOR else known.get(key)
            if plan is None:
                return _first(known, key, x, weight, offset, epsilon)
            y = x.new_empty(tokens, n)
            plan[0](-(-tokens // plan[1]), 1, y.data_ptr(), address, None, factors, tokens, epsilon)
            return y
        added = residual.data_ptr()
        key = (key, residual.shape == shape, residual.stride(), residual.dtype, residual.get_device())
        plan = None if (address | factors | added) % VECTOR or added == address else known.get(key)
        if plan is None:
            return _first_sum(known, key, (x, residual), weight, offset, epsilon)
        plan[0](-(-tokens // plan[1]), 1, address, address, added, factors, tokens, epsilon)
        return x, residual

    return norm


rms_norm = _norm(0.0)
gemma_rms_norm = _norm(1.0)


def _of_rows(norm: Callable[..., Any], obj: Any, x: torch.Tensor, residual: torch.Tensor | None) -> Any:
    """The norm of x as rows."""
    if residual is None:
        return norm(obj, x.reshape(-1, x.shape[-1])).view(x.shape) if x.numel() else torch.empty_like(x)
    require_shape(residual, x)
    if not x.numel():
        return x, residual.to(x.dtype)
    y, total = norm(obj, x.reshape(-1, x.shape[-1]), residual.reshape(-1, x.shape[-1]))
    return in_shape(y, x), in_shape(total, residual)


def _first(
    known: Known, key: Hashable, x: torch.Tensor, given_weight: torch.Tensor, offset: float, epsilon: float
) -> torch.Tensor:
    """The norm of rows that are new, or not as the kernel can take them. Remembers how it was launched if they are."""
    weight, rows = vector(given_weight, x), dense(x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    plan = _launch(y, rows, None, weight, offset, epsilon)
    if plan is not None and rows is x and weight is given_weight:
        known[key] = plan
    return y


def _first_sum(
    known: Known,
    key: Hashable,
    given: tuple[torch.Tensor, torch.Tensor],
    given_weight: torch.Tensor,
    offset: float,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`_first`, with a residual."""
    x, residual = given
    require_shape(residual, x)
    weight, rows = vector(given_weight, x), writable(x)
    if residual.dtype != x.dtype or residual.data_ptr() == x.data_ptr():
        total = writable(residual.to(torch.promote_types(x.dtype, residual.dtype), copy=True))
        _launch(rows, rows, total, weight, offset, epsilon)
        return in_shape(rows, x), total.to(x.dtype)
    total = writable(residual)
    plan = _launch(rows, rows, total, weight, offset, epsilon)
    if plan is not None and rows is x and total is residual and weight is given_weight:
        known[key] = plan
    return in_shape(rows, x), in_shape(total, residual)


def _launch(
    y: torch.Tensor,
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    offset: float,
    epsilon: float,
) -> tuple[Relaunch, int] | None:
    if not x.numel():
        return None
    tokens, n = x.shape
    rows, block, warps = config(n, tokens, has_residual=residual is not None)
    strides = (y.stride()[0], x.stride()[0], 0 if residual is None else residual.stride()[0])
    constants = (offset, n, *strides, rows, block)
    relaunch = _rms_norm((-(-tokens // rows), 1), (y, x, residual, weight), (tokens, epsilon), constants, warps)
    return None if relaunch is None else (relaunch, rows)


@Kernel
def _rms_norm(  # noqa: PLR0913, PLR0917 - a kernel has no other way to be given them
    y: tl.tensor,
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    tokens: tl.int64,
    epsilon: tl.float32,
    OFFSET: tl.constexpr,
    N: tl.constexpr,
    Y_ROW: tl.constexpr,
    X_ROW: tl.constexpr,
    R_ROW: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    if N <= BLOCK:
        col = tl.arange(0, BLOCK)[None, :]
        # There is a program for each row, and no other: not asking leaves the wide ones the registers for one more on a
        # multiprocessor, and takes one from those of 4096 columns.
        kept = (col < N) if ROWS == 1 and BLOCK > 4096 else (row < tokens) & (col < N)
        total = _sum(x, residual, row, col, kept, X_ROW, R_ROW)
        if residual is not None:  # before the row is summed up, which no store needs to wait for
            tl.store(residual + row * R_ROW + col, total.to(residual.dtype.element_ty), kept)
        scale = tl.rsqrt(tl.sum(total * total, 1) / N + epsilon)[:, None]
        factor = tl.load(weight + col, col < N, 0.0).to(tl.float32) + OFFSET
        tl.store(y + row * Y_ROW + col, (total * scale * factor).to(y.dtype.element_ty), kept)
    else:
        squares = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, N, BLOCK):
            col = start + tl.arange(0, BLOCK)[None, :]
            total = _sum(x, residual, row, col, (row < tokens) & (col < N), X_ROW, R_ROW)
            squares += total * total
        scale = tl.rsqrt(tl.sum(squares, 1) / N + epsilon)[:, None]
        for start in range(0, N, BLOCK):
            col = start + tl.arange(0, BLOCK)[None, :]
            kept = (row < tokens) & (col < N)
            total = _sum(x, residual, row, col, kept, X_ROW, R_ROW)
            factor = tl.load(weight + col, col < N, 0.0).to(tl.float32) + OFFSET
            tl.store(y + row * Y_ROW + col, (total * scale * factor).to(y.dtype.element_ty), kept)
            if residual is not None:
                tl.store(residual + row * R_ROW + col, total.to(residual.dtype.element_ty), kept)


@device_function
def _sum(
    x: tl.tensor,
    residual: tl.tensor,
    row: tl.tensor,
    col: tl.tensor,
    kept: tl.tensor,
    X_ROW: tl.constexpr,
    R_ROW: tl.constexpr,
) -> tl.tensor:
    total = tl.load(x + row * X_ROW + col, kept, 0.0).to(tl.float32)
    if residual is not None:
        total += tl.load(residual + row * R_ROW + col, kept, 0.0).to(tl.float32)
    return total
