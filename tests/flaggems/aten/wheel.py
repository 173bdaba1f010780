"""The released FlagGems, fetched once and kept in the user's cache folder: to be read, and imported in processes of
its own. It is not installed, for the numpy that it would bring."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

RELEASE = "flag-gems==5.0.2"
_NEEDED = "sqlalchemy==2.0.48"
"""What it imports and SGLang does not bring."""


def search_path() -> Path:
    """A folder from which ``import flag_gems`` gets the release. Safe to ask for from several processes at once."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "sglang-fl" / RELEASE.replace("==", "-")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed process's
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    subprocess.run([*command, "--target", str(scratch), RELEASE, _NEEDED], check=True)
    scratch.rename(folder)
