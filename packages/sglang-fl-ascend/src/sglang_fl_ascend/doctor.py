"""``sglang-fl doctor`` on Ascend: torch_npu, CANN, the driver. Metadata and files are read; no SDK is imported.

What is missing is a failure where the machine has an NPU, and only worth knowing elsewhere.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from packaging.version import Version

from sglang_fl.records import Diagnosis

_DEVICES = Path("/dev")
_ENVIRONMENTS = {
    Path("/usr/local/Ascend/cann"): Path("/usr/local/Ascend/cann/set_env.sh"),  # from 8.5 on
    Path("/usr/local/Ascend/ascend-toolkit/latest"): Path("/usr/local/Ascend/ascend-toolkit/set_env.sh"),
}
"""Where CANN is installed by default, newest first, and what sets its environment."""

_PATIENCE_S = 20


def torch_npu() -> Diagnosis:
    """Is torch_npu the one for the installed torch? X.Y must be the same."""
    torch, found = _version("torch"), _version("torch_npu")
    if torch is None:
        return Diagnosis(subject="torch_npu", ok=None, found=f"{found or 'not installed'}, without torch")
    series = f"{torch.major}.{torch.minor}"
    wanted, remedy = f"torch_npu {series}, for torch {torch}", f'pip install "torch_npu=={series}.*"'
    if found is None:
        return _absent("torch_npu", "not installed", wanted, remedy)
    if found.release[:2] == torch.release[:2]:
        return Diagnosis(subject="torch_npu", ok=True, found=f"{found}, for torch {torch}")
    return Diagnosis(subject="torch_npu", ok=False, found=str(found), wanted=wanted, remedy=remedy)


def cann() -> Diagnosis:
    """Is CANN there, and is its environment set, without which torch_npu does not find it?"""
    home = os.environ.get("ASCEND_HOME_PATH")
    if home:
        version = _cann_version(Path(home))
        if version is not None:
            return Diagnosis(subject="CANN", ok=True, found=f"{version}, in {home}")
        wanted, remedy = "the folder of a CANN toolkit", "source the set_env.sh of the CANN that is to serve"
        return Diagnosis(subject="CANN", ok=False, found=f"ASCEND_HOME_PATH={home}", wanted=wanted, remedy=remedy)
    for installed, environment in _ENVIRONMENTS.items():
        version = _cann_version(installed)
        if version is not None:
            found = f"{version}, in {installed}, but ASCEND_HOME_PATH is not set"
            return _absent("CANN", found, "CANN's environment", f"source {environment}")
    remedy = "install CANN's toolkit and its ops for this chip, from hiascend.com, and source its set_env.sh"
    return _absent("CANN", "no ASCEND_HOME_PATH, and none in /usr/local/Ascend", "CANN", remedy)


def driver() -> Diagnosis:
    """Which driver's tools answer?"""
    subject, wanted, remedy = "Ascend driver", "a driver that answers", "install the driver and firmware for this NPU"
    command = shutil.which("npu-smi")
    if command is None:
        return _absent(subject, "no npu-smi", wanted, remedy)
    try:
        answer = subprocess.run([command, "info"], capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return _absent(subject, f"npu-smi info, without an answer in {_PATIENCE_S} s", wanted, remedy)
    version = re.search(r"Version:\s*(\S+)", answer.stdout)
    if answer.returncode == 0 and version is not None:
        return Diagnosis(subject=subject, ok=True, found=version[1])
    said = " ".join((answer.stdout + answer.stderr).split())[:200]
    return _absent(subject, f"npu-smi info, exit status {answer.returncode}: {said}", wanted, remedy)


def _absent(subject: str, found: str, wanted: str, remedy: str) -> Diagnosis:
    if any(_DEVICES.glob("davinci[0-9]*")):
        return Diagnosis(subject=subject, ok=False, found=found, wanted=wanted, remedy=remedy)
    return Diagnosis(subject=subject, ok=None, found=found)


def _version(distribution: str) -> Version | None:
    try:
        return Version(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return None


def _cann_version(home: Path) -> str | None:
    """The version of the CANN toolkit in ``home``, or None where there is none."""
    info = home / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    line = re.search(r"^version=(\S+)$", info.read_text("utf-8"), re.MULTILINE) if info.is_file() else None
    return None if line is None else line[1]
