from __future__ import annotations

from importlib.util import find_spec

# Where torch_npu is not installed, test_under_torch_npu.py runs these in a process that has it.
collect_ignore = [] if find_spec("torch_npu") else ["under_torch_npu"]
