"""The backend's ops as the conformance kit calls them."""

from __future__ import annotations

import torch

from sglang_fl.testing.under_test import OpUnderTest
from sglang_fl_ascend import hooks

IMPLS = {impl.op: impl for impl in hooks.sglang_fl_register_ops(hooks.ASCEND)}
OPS = tuple(IMPLS)


def subject(op: str, device: str, examples: int = 30) -> OpUnderTest:
    """``op`` on the device ``device``."""
    return OpUnderTest(IMPLS[op], torch.device(device), examples=examples)
