"""What the suite starts."""

from __future__ import annotations

import subprocess
from importlib import metadata

from sglang_fl.testing.processes import SGLANG


def test_sglang_is_this_pythons_wherever_the_path_leads() -> None:
    said = subprocess.run([*SGLANG, "version"], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True)

    assert metadata.version("sglang") in said.stdout
