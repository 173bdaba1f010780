"""Is what is installed what the installed SGLang asks for? Only metadata is read; nothing is imported."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection, Iterator
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sglang_fl.adapter import seams
from sglang_fl.errors import SeamError
from sglang_fl.plugins import CORE
from sglang_fl.records import Diagnosis


class _Need(NamedTuple):
    """A distribution that another requires, and the device types on which its version must be just that; None for all.

    On other devices it is the device vendor's own build, or not needed.
    """

    name: str
    by: str
    devices: Collection[str] | None


_NEEDS = (
    _Need("torch", "sglang", {"cpu", "cuda"}),
    _Need("transformers", "sglang", None),
    _Need("triton", "torch", {"cuda"}),
    _Need("sglang-kernel", "sglang", {"cuda"}),
)


def check_versions(device_type: str | None) -> Iterator[Diagnosis]:
    """Python, SGLang, and what SGLang stands on. ``device_type`` is the platform's, or None where there is none."""
    yield _python()
    yield _sglang()
    for need in _NEEDS:
        yield _check(need, matters=need.devices is None or device_type in need.devices)


def _python() -> Diagnosis:
    by = CORE if _version("sglang") is None else "sglang"
    wanted = SpecifierSet(importlib.metadata.metadata(by)["Requires-Python"])
    found = platform.python_version()
    if wanted.contains(found, prereleases=True):
        return Diagnosis(subject="Python", ok=True, found=found)
    return Diagnosis(
        subject="Python",
        ok=False,
        found=found,
        wanted=f"{wanted}, as {by} requires",
        remedy=f"create the environment anew with a Python {wanted}",
    )


def _sglang() -> Diagnosis:
    try:
        version = seams.sglang_version()
        problem = seams.unsupported(version)
    except SeamError as error:
        problem = error
    if problem is None:
        return Diagnosis(subject="SGLang", ok=True, found=str(version))
    return Diagnosis(subject="SGLang", ok=False, found=problem.found, wanted=problem.asked, remedy=problem.do)


def _check(need: _Need, *, matters: bool) -> Diagnosis:
    found, wanted = _version(need.name), _requirement(need)
    shown = found or _stand_in(need.name) or "not installed"
    if wanted is None:
        return Diagnosis(subject=need.name, ok=None, found=shown)
    if found is not None and wanted.specifier.contains(found, prereleases=True):
        return Diagnosis(subject=need.name, ok=True, found=shown)
    return Diagnosis(
        subject=need.name,
        ok=False if matters else None,
        found=shown,
        wanted=f"{wanted.specifier or 'any version'}, as {need.by} {_version(need.by)} requires",
        remedy=f'pip install "{need.name}{wanted.specifier}"' if matters else "",
    )


def _requirement(need: _Need) -> Requirement | None:
    """What ``need.by`` requires here, or None where it is not installed or requires no such thing."""
    if _version(need.by) is None:
        return None
    requirements = map(Requirement, importlib.metadata.requires(need.by) or ())
    here = (one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""}))
    return next((one for one in here if one.name == need.name), None)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _stand_in(module: str) -> str | None:
    """The distributions of other names that bring ``module``, as a vendor's build of it may."""
    names = importlib.metadata.packages_distributions().get(module, ())
    return ", ".join(f"{name} {_version(name)}" for name in dict.fromkeys(names)) or None
