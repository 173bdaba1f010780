"""The real torch_npu on a machine without NPU and CANN: kept in the user's cache folder, made at first need.

torch_npu links CANN's libraries and so cannot be imported without them. In their place stand libraries that have the
C symbols which torch_npu lacks, each a function that does nothing and returns 0, which is CANN's "success". torch_npu's
operators then have their schemas and their shape functions, and there are 0 devices.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = ("torch==2.13.0+cpu", "torch_npu==2.13.0")
"""The CPU build by its local version: PyTorch's default one would bring gigabytes of CUDA."""

_CANN = ("hccl", "ascendcl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel", "atb")
_DEAD_WEIGHT = ("torch/include", "torch/test", "torch_npu/include")
_ROOT = Path(__file__).parents[2]


class CannotBeHad(Exception):
    """What this machine lacks."""


def environment() -> dict[str, str]:
    """The environment of a process in which ``import torch_npu`` works. Raises CannotBeHad."""
    folder = _folder()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(_ROOT)]),
        "LD_LIBRARY_PATH": str(folder / "cann"),
    }


def _folder() -> Path:
    """Safe to ask for from several processes at once, and to be killed in."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "sglang-fl" / f"torch_npu-2.13.0-{sys.implementation.cache_tag}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():  # nobody made it while this process waited
                _make(folder)
    return folder


def _make(folder: Path) -> None:
    for tool in ("gcc", "nm"):
        if shutil.which(tool) is None:
            raise CannotBeHad(tool)
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed process's
    _install(scratch)
    for name in _DEAD_WEIGHT:
        shutil.rmtree(scratch / name)
    _stand_in_for_cann(scratch)
    scratch.rename(folder)


def _install(folder: Path) -> None:
    """Without what both depend on: it is in this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--target", str(folder), *REQUIREMENTS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBeHad(f"{' and '.join(REQUIREMENTS)} for this Python: {done.stderr.strip().splitlines()[-1]}")


def _stand_in_for_cann(site: Path) -> None:
    """The libraries, in the folder ``cann``: one, under every name."""
    folder = site / "cann"
    folder.mkdir()
    source, library = folder / "cann.c", folder / f"lib{_CANN[0]}.so"
    source.write_text("\n".join(map(_function, _missing_symbols(site))))
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    for name in _CANN[1:]:
        (folder / f"lib{name}.so").symlink_to(library.name)


def _function(symbol: str) -> str:
    if symbol == "aclrtGetDeviceCount":
        return "int aclrtGetDeviceCount(unsigned *count) { *count = 0; return 0; }"
    return f"int {symbol}(void) {{ return 0; }}"


def _missing_symbols(site: Path) -> list[str]:
    """What torch_npu's libraries need that neither they, nor torch's, nor this process has."""
    own = [*(site / "torch_npu").glob("*.so"), *(site / "torch_npu" / "lib").glob("*.so")]
    has = _symbols("--defined-only", [*own, *(site / "torch" / "lib").glob("*.so*")])
    process = ctypes.CDLL(None)
    needs = (name for name in _symbols("--undefined-only", own) if "@" not in name)  # versioned: the system's
    return sorted(name for name in needs if name not in has and not hasattr(process, name))


def _symbols(which: str, libraries: Iterable[Path]) -> set[str]:
    """The dynamic symbols, but the weak ones, which may be missing."""
    listed = subprocess.run(["nm", "-D", which, *map(str, libraries)], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return {row[-1] for row in rows if len(row) > 1 and row[-2] not in "wv"}
