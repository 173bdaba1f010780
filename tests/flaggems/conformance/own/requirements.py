from __future__ import annotations

from sglang_fl.testing import Requirements
from tests.flaggems.device import INTERPRETED

requirements = Requirements(
    plugin="flaggems",
    platform="cuda",
    implementation="flagos.triton",
    sdk=("flag_gems", "triton"),
    closed={"collectives": "the backend has no communicator"},
    **({"device": "cpu", "simulated_by": "Triton's interpreter"} if INTERPRETED else {}),
)
