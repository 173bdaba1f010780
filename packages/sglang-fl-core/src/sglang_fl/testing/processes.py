"""Processes of their own, with none of core's settings."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from sglang_fl.testing.configuration import clean_environment

SECONDS = 600


def run_module(module: str, *arguments: str, **variables: str) -> Any:
    """What ``python -m module`` writes as JSON on its last line of output. Raises AssertionError when it fails."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"python -m {module} ended with status {ended.returncode}:\n{ended.stderr[-4000:]}"
    return json.loads(ended.stdout.splitlines()[-1])
