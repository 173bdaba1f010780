"""The stand-in for libflagcx, compiled once; each test loads a copy, with counts and a log of its own."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sglang_fl_flagcx import location

_SOURCE = Path(__file__).parent / "standin" / "flagcx.c"
_FLAGS = ("-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-w")


class StandIn:
    """A loaded stand-in: what it noted, and what it is to do."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._library = ctypes.CDLL(str(file))
        self._library.standin_log.restype = ctypes.c_char_p

    def log(self) -> list[str]:
        """Every call since the last time this was asked, with its arguments."""
        lines = self._library.standin_log().decode().splitlines()
        self._library.standin_forget()
        return [line.strip() for line in lines]

    def live(self) -> dict[str, int]:
        """How many communicators, stream handles and device handles have been made and not freed."""
        return {what: self._library.standin_live(what.encode()) for what in ("comms", "streams", "handles")}

    def fail(self, function: str, result: int) -> None:
        """The function's next call answers ``result``."""
        self._library.standin_fail(function.encode(), result)

    def hold(self, function: str) -> None:
        """The function's calls wait until something else is held."""
        self._library.standin_hold(function.encode())

    def busy(self, is_busy: bool) -> None:
        """Have the streams work to do?"""
        self._library.standin_busy(int(is_busy))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, cc, for the stand-in of libflagcx")
    file = tmp_path_factory.mktemp("standin") / "libflagcx.so"
    subprocess.run([compiler, *_FLAGS, "-o", str(file), str(_SOURCE)], check=True)
    return file


@pytest.fixture
def standin(compiled: Path, tmp_path: Path) -> StandIn:
    return StandIn(shutil.copy(compiled, tmp_path / "libflagcx.so"))


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without FlagCX, whatever this one has."""
    monkeypatch.setattr(location, "NAME", "libflagcx-that-is-not-there.so")
    monkeypatch.setattr(location.importlib.util, "find_spec", lambda name: None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collectives need two devices."""
    return (collection_path.name == "conformance" and torch.cuda.device_count() < 2) or None
