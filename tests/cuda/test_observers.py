from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sglang_fl_cuda.observers import ops_are_seen


def test_torchs_profiler_sees_ops() -> None:
    assert not ops_are_seen()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert ops_are_seen()
    assert not ops_are_seen()


@pytest.mark.parametrize("mode", [TorchDispatchMode, TorchFunctionMode])
def test_a_mode_sees_ops(mode: Any) -> None:
    with mode():
        assert ops_are_seen()
    assert not ops_are_seen()


def test_dynamo_sees_ops() -> None:
    seen = torch.compile(lambda x: x + 1 if ops_are_seen() else x, backend="eager", fullgraph=True)
    assert torch.equal(seen(torch.zeros(2)), torch.ones(2))
