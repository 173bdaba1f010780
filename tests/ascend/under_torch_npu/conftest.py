from __future__ import annotations

from tests.ascend.under_torch_npu import kernels

kernels.register()
