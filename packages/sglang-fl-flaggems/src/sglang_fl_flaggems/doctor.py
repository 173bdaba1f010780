"""``sglang-fl doctor`` on FlagGems. Metadata is read; FlagGems is not imported."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version

from sglang_fl.records import Diagnosis
from sglang_fl_flaggems import availability
from sglang_fl_flaggems.aten.table import installed_package, read_release

_SUBJECT = "FlagGems"


def flag_gems() -> Iterator[Diagnosis]:
    """Its version, whether its kernels work with the installed Triton, and where it keeps what it compiles."""
    version = _version()
    if version is None:
        found = "not installed; our own Triton kernels do not need it"
        yield Diagnosis(subject=_SUBJECT, ok=None, found=found)
        return
    obstacle = availability.obstacle()
    if obstacle is not None and obstacle.lacks is not None:
        found, lacks = f"{version}, without {obstacle.lacks}, which it imports", obstacle.lacks
        yield Diagnosis(subject=_SUBJECT, ok=False, found=found, wanted=lacks, remedy=obstacle.do)
        return
    if obstacle is not None:
        found = f"{version}, not used: {obstacle.found}"
        yield Diagnosis(subject=_SUBJECT, ok=None, found=found)
        return
    folder = os.environ.get("FLAGGEMS_CACHE_DIR") or Path.home() / ".flaggems"  # as FlagGems itself decides
    yield Diagnosis(
        subject=_SUBJECT,
        ok=True,
        found=f"{version}, for triton before {availability.TRITON_BEFORE}; cache {folder}",
    )


def _version() -> str | None:
    """The FlagGems that would be imported; None where there is none. Sources on the path have no metadata."""
    gems, package = _installed("flag-gems"), installed_package()
    if gems is not None or package is None:
        return None if gems is None else gems.version
    return f"{read_release(package) or 'an unknown release'} in {package}"


def numpy() -> Iterator[Diagnosis]:
    """What is installed beside FlagGems, which wants one old numpy, and does not take the numpy that is here."""
    gems, found = _installed("flag-gems"), _installed("numpy")
    if gems is None or found is None:
        return
    wants = {dist.name: spec for dist in distributions() if (spec := _wanted_numpy(dist)) is not None}
    pin = wants.pop(gems.name, SpecifierSet())
    broken = {name: spec for name, spec in sorted(wants.items()) if not spec.contains(found.version, prereleases=True)}
    if broken:
        told = ", ".join(f"{name} ({spec})" for name, spec in broken.items())
        every = _joint(wants.values())
        asked = f", as flag-gems {gems.version} may have asked ({pin})" if pin.contains(found.version) else ""
        yield Diagnosis(
            subject="numpy",
            ok=False,
            found=f"{found.version}{asked}; it breaks {told}",
            wanted=f"numpy {every}: our use of FlagGems does not depend on its pin",
            remedy=f"pip install 'numpy{every}'",
        )
        return
    kept = pin.contains(found.version, prereleases=True)
    pinned = f"flag-gems {gems.version} asks for {pin or 'any'}"
    yield Diagnosis(subject="numpy", ok=True if kept else None, found=f"{found.version}; {pinned}")


def _joint(specifiers: Iterable[SpecifierSet]) -> SpecifierSet:
    """What all of them want, without the bounds that another one's implies."""
    clauses = {clause for specifier in specifiers for clause in specifier}
    lower, upper = ([clause for clause in clauses if clause.operator == sign] for sign in (">=", "<"))
    others = clauses.difference(lower, upper)
    ends = [*sorted(lower, key=_bound)[-1:], *sorted(upper, key=_bound)[:1]]
    return SpecifierSet(",".join(map(str, (*ends, *others))))


def _bound(clause: Specifier) -> Version:
    return Version(clause.version)


def _wanted_numpy(dist: Distribution) -> SpecifierSet | None:
    """The numpy that ``dist`` wants without any extra, or None."""
    requirements = (Requirement(line) for line in dist.requires or () if line.startswith("numpy"))
    wanted = [
        requirement.specifier
        for requirement in requirements
        if requirement.name == "numpy" and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]
    return functools.reduce(operator.and_, wanted) if wanted else None


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
