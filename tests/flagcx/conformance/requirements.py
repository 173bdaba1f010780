from __future__ import annotations

from sglang_fl.testing import Requirements

_NO_OPS = "the backend has no ops"

requirements = Requirements(
    plugin="flagcx",
    platform="cuda",
    communicator="flagcx",
    closed=dict.fromkeys(("serving", "attention", "graphs", "compile", "performance"), _NO_OPS),
)
