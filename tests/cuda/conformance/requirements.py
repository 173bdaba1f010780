from __future__ import annotations

from sglang_fl.testing import Requirements

requirements = Requirements(
    plugin="cuda",
    platform="nvidia",
    implementation="vendor.cuda",
    sdk=("sgl_kernel",),
    closed={"collectives": "the backend has no communicator: SGLang's own NCCL serves"},
)
