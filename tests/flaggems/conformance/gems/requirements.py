from __future__ import annotations

from sglang_fl.testing import Requirements

requirements = Requirements(
    plugin="flaggems",
    platform="cuda",
    implementation="flagos.flaggems",
    sdk=("flag_gems", "triton"),
    closed={
        "gemma_rms_norm": "FlagGems has none",
        "collectives": "the backend has no communicator",
    },
)
