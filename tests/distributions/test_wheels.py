"""What the wheels hold and say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.distributions.conftest import DISTRIBUTIONS, PACKAGES

Wheels = Mapping[str, Path]

CORE = "sglang-fl-core"
BACKENDS = [name for name in DISTRIBUTIONS if name != CORE]
HEAVY = {"torch", "sglang", "sglang-kernel", "triton", "torch-npu", "flag-gems", "numpy"}
"""What would pull a torch of its own, or contradict the one that a chip's SDK brings."""

each_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


def source_files(name: str) -> set[str]:
    """The files of a package as its wheel should name them."""
    src = PACKAGES / name / "src"
    files = (path for path in src.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(src)) for path in files}


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(wheel: Path) -> Iterator[Requirement]:
    return map(Requirement, metadata(wheel).get_all("Requires-Dist") or [])


def unconditional(wheel: Path) -> set[str]:
    return {one.name for one in requirements(wheel) if one.marker is None}


@each_distribution
def test_a_wheel_holds_every_file_of_its_package_the_yaml_and_py_typed_among_them(wheels: Wheels, name: str) -> None:
    with ZipFile(wheels[name]) as archive:
        held = {file for file in archive.namelist() if ".dist-info/" not in file}
    assert held == source_files(name)
    assert f"{sorted(held)[0].split('/')[0]}/py.typed" in held


@each_distribution
def test_a_wheel_brings_the_licence_and_a_readme(wheels: Wheels, name: str) -> None:
    told = metadata(wheels[name])
    assert (told["License-Expression"], told["License-File"]) == ("Apache-2.0", "LICENSE")
    assert str(told.get_payload()).startswith(f"# {name}")
    assert "Typing :: Typed" in (told.get_all("Classifier") or [])


def test_the_distributions_have_one_version(wheels: Wheels) -> None:
    assert len({metadata(wheel)["Version"] for wheel in wheels.values()}) == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_takes_core_of_its_own_minor_version_and_no_other_backend(wheels: Wheels, name: str) -> None:
    ours = [one for one in requirements(wheels[name]) if one.name.startswith("sglang-fl")]
    assert [one.name for one in ours] == [CORE]
    assert_same_minor(ours[0], Version(metadata(wheels[name])["Version"]))


def test_core_has_an_extra_for_each_backend_and_one_for_all(wheels: Wheels) -> None:
    ours = [one for one in requirements(wheels[CORE]) if one.name.startswith("sglang-fl")]
    extras = {name.removeprefix("sglang-fl-"): {name} for name in BACKENDS} | {"all": set(BACKENDS)}
    for extra, wanted in extras.items():
        assert {one.name for one in ours if one.marker and one.marker.evaluate({"extra": extra})} == wanted
    for one in ours:
        assert_same_minor(one, Version(metadata(wheels[CORE])["Version"]))


@each_distribution
def test_a_distribution_alone_requires_nothing_heavy(wheels: Wheels, name: str) -> None:
    assert unconditional(wheels[name]) & HEAVY == set()


def assert_same_minor(requirement: Requirement, version: Version) -> None:
    accepted = requirement.specifier
    assert accepted.contains(version)
    assert accepted.contains(Version(f"{version.major}.{version.minor}.99"))
    assert not accepted.contains(Version(f"{version.major}.{version.minor + 1}"))
    assert not accepted.contains(Version(f"{version.major}.{version.minor}.dev0"))
