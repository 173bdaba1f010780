"""SGLang's releases as folders for a search path: fetched once, kept in the user's cache folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

RELEASES = tuple(f"0.5.{patch}" for patch in range(17, 24))
"""Every release that the adapter supports."""

TRANSFORMERS = ("transformers==5.12.1", "tokenizers==0.22.2")
"""What releases before 0.5.22 need: they do not start with the transformers of the later ones."""


def search_path(release: str) -> list[Path]:
    """The folders that make ``import sglang`` find ``release`` when they come first; none for the installed one."""
    if release == importlib.metadata.version("sglang"):
        return []
    older = release in RELEASES[: RELEASES.index("0.5.22")]
    return [_unpacked(f"sglang=={release}"), *([_unpacked(*TRANSFORMERS)] if older else [])]


def source_folder(release: str) -> Path:
    """The folder that holds the release's ``sglang``, whose files are meant to be read, not imported."""
    folders = search_path(release)
    if folders:
        return folders[0]
    spec = importlib.util.find_spec("sglang")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.parent


def _unpacked(*requirements: str) -> Path:
    """A folder with just these distributions. Safe to ask for from several processes at once, and to be killed in."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "sglang-fl" / "releases" / requirements[0].replace("==", "-")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():  # nobody made it while this process waited
                _install(folder, requirements)
    return folder


def _install(folder: Path, requirements: tuple[str, ...]) -> None:
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed process's
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    subprocess.run([*command, "--target", str(scratch), *requirements], check=True)
    scratch.rename(folder)
