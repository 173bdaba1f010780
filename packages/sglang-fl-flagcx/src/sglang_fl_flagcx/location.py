"""Where libflagcx may be: where the user says; else in an installed ``flagcx`` package, or on the loader's path."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NAME = "libflagcx.so"
_FOLDERS = ("", "lib", "build/lib")  # of an installation, and of FlagCX's own source tree


class Place(NamedTuple):
    """One place to look: what to hand to the loader, None where there is nothing, and the words for people."""

    file: str | None
    words: str


def places(path: Path | None) -> Iterator[Place]:
    """Where to look, in order. Where the user names a ``path``, a file or a folder, nowhere else."""
    if path is not None:
        yield _within(path, f"FLAGCX_PATH, {path}")
        return
    yield _installed()
    yield Place(NAME, "the loader's path")


def _installed() -> Place:
    # Found, not imported: importing flagcx patches torch.distributed.
    package = importlib.util.find_spec("flagcx")
    if package is None or not package.submodule_search_locations:
        return Place(None, "the package flagcx, which is not installed")
    folder = Path(package.submodule_search_locations[0])
    return _within(folder, f"the package flagcx in {folder}")


def _within(path: Path, words: str) -> Place:
    files = [path] if path.is_file() else [path / folder / NAME for folder in _FOLDERS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return Place(None, f"{words}, which has no {NAME}" if path.is_dir() else f"{words}, which does not exist")
    return Place(str(file.absolute()), words)
