"""``sglang-fl doctor`` on FlagGems. Metadata is read; FlagGems is not imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sglang_fl.records import Diagnosis
from sglang_fl_flaggems import availability

_SUBJECT = "FlagGems"


def flag_gems() -> Iterator[Diagnosis]:
    """Its version, whether its kernels work with the installed Triton, and where it keeps what it compiles."""
    gems = _installed("flag-gems")
    if gems is None:
        found = "not installed; our own Triton kernels do not need it"
        yield Diagnosis(subject=_SUBJECT, ok=None, found=found)
        return
    obstacle = availability.obstacle()
    if obstacle is not None and obstacle.lacks is not None:
        found, lacks = f"{gems.version}, without {obstacle.lacks}, which it imports", obstacle.lacks
        yield Diagnosis(subject=_SUBJECT, ok=False, found=found, wanted=lacks, remedy=obstacle.do)
        return
    if obstacle is not None:
        found = f"{gems.version}, not used: {obstacle.found}"
        yield Diagnosis(subject=_SUBJECT, ok=None, found=found)
        return
    folder = os.environ.get("FLAGGEMS_CACHE_DIR") or Path.home() / ".flaggems"  # as FlagGems itself decides
    yield Diagnosis(
        subject=_SUBJECT,
        ok=True,
        found=f"{gems.version}, for triton before {availability.TRITON_BEFORE}; cache {folder}",
    )


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
        every = SpecifierSet(",".join(str(spec) for spec in broken.values()))
        yield Diagnosis(
            subject="numpy",
            ok=False,
            found=f"{found.version}, as flag-gems {gems.version} may have asked ({pin}); it breaks {told}",
            wanted=f"numpy {every}: our use of FlagGems does not depend on its pin",
            remedy=f"pip install 'numpy{every}'",
        )
        return
    kept = pin.contains(found.version, prereleases=True)
    pinned = f"flag-gems {gems.version} asks for {pin or 'any'}"
    yield Diagnosis(subject="numpy", ok=True if kept else None, found=f"{found.version}; {pinned}")


def _wanted_numpy(dist: Distribution) -> SpecifierSet | None:
    """The numpy that ``dist`` wants without any extra, or None."""
    for line in dist.requires or ():
        if line.startswith("numpy"):
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if requirement.name == "numpy" and applies:
                return requirement.specifier
    return None


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
