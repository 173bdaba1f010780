from __future__ import annotations

import torch

from sglang_fl_cuda.observers import ops_are_seen


def test_torchs_profiler_sees_ops() -> None:
    assert not ops_are_seen()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert ops_are_seen()
    assert not ops_are_seen()


def test_dynamo_sees_ops() -> None:
    seen = torch.compile(lambda x: x + 1 if ops_are_seen() else x, backend="eager", fullgraph=True)
    assert torch.equal(seen(torch.zeros(2)), torch.ones(2))
