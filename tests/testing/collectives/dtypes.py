"""The dtypes that a communicator may declare."""

from __future__ import annotations

import torch

INTEGERS = (
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = (*INTEGERS, *FLOATS, torch.bool, torch.complex32, torch.complex64, torch.complex128)
