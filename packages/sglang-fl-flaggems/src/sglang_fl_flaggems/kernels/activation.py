"""The gated activations: in fp32, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
import triton.language as tl

from sglang_fl_flaggems.kernels.launch import MANY, VECTOR, Kernel, Relaunch, Tile, power_of_2
from sglang_fl_flaggems.kernels.rows import dense


class Plan(NamedTuple):
    """How to launch for rows like others.

    Attributes:
        relaunch: launches what was compiled for them.
        n: the width of a result.
        rows: how many rows a program has.
        blocks: how many programs share a row.
    """

    relaunch: Relaunch
    n: int
    rows: int
    blocks: int


def config(n: int, tokens: int) -> Tile:
    """The tile for ``tokens`` rows of ``n`` results, as measured on an H100."""
    if tokens < MANY:  # as many programs and warps as can load at once
        block = min(power_of_2(n), 1024)
        return Tile(1, block, max(block // 128, 1))
    block = min(power_of_2(n), 4096)
    rows = max(2048 // block, 1)
    return Tile(rows, block, rows * block // 256)


def _activation(act: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """``act(gate) * up`` for x = (gate, up): ``[..., 2d]`` -> a new ``[..., d]``.

    ValueError for a row without two halves, TypeError for integers.
    """
    known: dict[Hashable, Plan] = {}

    def act_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 2:
            return _of_rows(act_and_mul, x)
        (tokens, width), address = x.shape, x.data_ptr()
        key = (width, x.stride(), x.dtype, x.get_device(), tokens >= MANY)
        plan = None if address % VECTOR else known.get(key)
        if plan is None:
            return _first(known, key, x, act)
        relaunch, n, rows, blocks = plan
        y = x.new_empty(tokens, n)
        relaunch(-(-tokens // rows) * blocks, 1, y.data_ptr(), address, tokens)
        return y

    return act_and_mul


silu_and_mul = _activation("silu")
gelu_and_mul = _activation("gelu")
gelu_tanh_and_mul = _activation("gelu_tanh")


def _of_rows(act_and_mul: Callable[[Any, torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    n = _half(x.shape[-1])
    y = act_and_mul(None, x.reshape(-1, 2 * n)) if x.numel() else x
    return y.new_empty((*x.shape[:-1], n)) if y is x else y.view(*x.shape[:-1], n)


def _half(width: int) -> int:
    if width % 2:
        msg = f"a row of {width} has no two halves"
        raise ValueError(msg)
    return width // 2


def _first(known: dict[Hashable, Plan], key: Hashable, given: torch.Tensor, act: str) -> torch.Tensor:
    """The activation of rows that are new, or not as the kernel can take them. Remembers how, if they are."""
    x, n = dense(given), _half(given.shape[1])
    tokens = x.shape[0]
    y = x.new_empty(tokens, n)
    if not y.numel():
        return y
    rows, block, warps = config(n, tokens)
    blocks = -(-n // block)
    constants = (act, n, x.stride()[0], rows, block)
    relaunch = _act_and_mul((-(-tokens // rows) * blocks, 1), (y, x), (tokens,), constants, warps)
    if relaunch is not None and x is given:
        known[key] = Plan(relaunch, n, rows, blocks)
    return y


@Kernel
def _act_and_mul(
    y: tl.tensor,
    x: tl.tensor,
    tokens: tl.int64,
    ACT: tl.constexpr,
    N: tl.constexpr,
    X_ROW: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    BLOCKS: tl.constexpr = (N + BLOCK - 1) // BLOCK
    program = tl.program_id(0)  # those of a row side by side: they run together, and so do their reads
    row = ((program // BLOCKS).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)[None, :]
    kept = (row < tokens) & (col < N)
    gate = tl.load(x + row * X_ROW + col, kept, 0.0).to(tl.float32)
    up = tl.load(x + row * X_ROW + N + col, kept, 0.0).to(tl.float32)
    if ACT == "silu":
        gate *= tl.sigmoid(gate)
    elif ACT == "gelu":
        gate *= 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:  # 1 + tanh(u) = 2 sigmoid(2u), with u = sqrt(2 / pi) * (gate + 0.044715 gate**3)
        gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    tl.store(y + row * N + col, (gate * up).to(y.dtype.element_ty), kept)
