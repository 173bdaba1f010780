"""Builds wheels and installs them, as their users would, with the uv that hatch brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def uv(*arguments: object) -> str:
    """Runs ``uv`` and returns what it prints; fails with what it says when it fails."""
    command = [_executable(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def build_wheel(project: Path, folder: Path) -> Path:
    """Builds the wheel of the distribution in ``project`` into ``folder``, and returns its path."""
    before = set(folder.glob("*.whl"))
    uv("build", "--quiet", "--wheel", "--out-dir", folder, project)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def install_beside(wheel: Path, site: Path) -> Path:
    """Installs ``wheel`` alone into the folder ``site``, which goes on a process's ``PYTHONPATH``; returns ``site``."""
    uv("pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", site, wheel)
    return site


def _executable() -> str:
    found = os.environ.get("HATCH_UV") or shutil.which("uv")
    assert found is not None, "needs uv: `hatch run test` brings it"
    return found
