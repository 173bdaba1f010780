from __future__ import annotations

import pytest
import torch

from sglang_fl_cuda import platform


@pytest.mark.gpu
def test_memory_is_told_in_bytes() -> None:
    total, used = platform.total_memory(0), platform.used_memory(0)
    assert total > used > 0
    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert platform.used_memory(0) >= used
    del held


@pytest.mark.gpu
def test_the_device_has_a_name() -> None:
    assert platform.device_name(0) == torch.cuda.get_device_properties(0).name
