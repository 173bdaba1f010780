from __future__ import annotations

from sglang_fl.testing import Requirements

requirements = Requirements(
    plugin="ascend",
    platform="ascend",
    implementation="vendor.ascend",
    sdk=("torch_npu",),
    closed={
        "collectives": "the backend has no communicator: SGLang's own uses HCCL",
    },
    device="cpu",
    simulated_by="CPU kernels from the vendor's documentation",
)
