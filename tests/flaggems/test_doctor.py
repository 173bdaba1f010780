from __future__ import annotations

from pathlib import Path

import pytest
import triton

from sglang_fl import Diagnosis
from sglang_fl_flaggems import availability, doctor


class Site:
    """A folder that is all that is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(self, name: str, version: str, *requires: str) -> None:
        info = self._folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join([*lines, ""]))

    def write(self, package: str, source: str) -> None:
        (self._folder / package).mkdir(exist_ok=True)
        (self._folder / package / "__init__.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    return Site(tmp_path)


@pytest.fixture
def gems(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """FlagGems' metadata, with its pin; all that it needs, and a Triton that it works with."""
    site.install("flag-gems", "5.0.2", "numpy ==1.26.4", "torch ==2.9.0 ; extra == 'nvidia'")
    site.write("flag_gems", "")
    monkeypatch.setattr(availability, "find_spec", lambda name: name)
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    return site


def one(lines: object) -> Diagnosis:
    (line,) = list(lines)  # type: ignore[call-overload]
    return line


def test_without_flaggems_there_is_nothing_to_mend(site: Site) -> None:
    site.install("numpy", "2.3.1")
    line = one(doctor.flag_gems())
    assert line.ok is None
    assert line.found.startswith("not installed")
    assert list(doctor.numpy()) == []


@pytest.mark.parametrize(("source", "release"), [("__version__ = '5.0.3'", "5.0.3"), ("", "an unknown release")])
def test_sources_on_the_path_are_told_though_no_metadata_tells_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, release: str
) -> None:
    site.write("flag_gems", source)
    monkeypatch.setattr(triton, "__version__", "3.8.0")
    line = one(doctor.flag_gems())
    assert line.found.startswith(f"{release} in {tmp_path / 'flag_gems'}, not used: from triton 3.7 on")


@pytest.mark.parametrize("folder", [None, "/scratch/gems"])
def test_the_version_is_told_and_where_it_caches(
    gems: Site, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("FLAGGEMS_CACHE_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("FLAGGEMS_CACHE_DIR", folder)
    line = one(doctor.flag_gems())
    assert line.ok is True
    assert line.found == f"5.0.2, for triton before 3.7; cache {folder or '/home/me/.flaggems'}"


def test_a_triton_that_breaks_it_is_worth_knowing_and_no_failure(gems: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "__version__", "3.8.0")
    line = one(doctor.flag_gems())
    assert line.ok is None
    assert line.found.startswith("5.0.2, not used: from triton 3.7 on")


def test_a_release_that_is_too_old_is_worth_knowing_and_no_failure_whatever_it_imports(
    gems: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gems.write("flag_gems", "__version__ = '5.0.0'")
    monkeypatch.setattr(availability, "find_spec", lambda name: None if name == "sqlalchemy" else name)
    line = one(doctor.flag_gems())
    assert line.ok is None
    assert "not used: flag-gems 5.0.0 is older than 5.0.2" in line.found


def test_what_it_imports_and_is_missing_has_a_command(gems: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "find_spec", lambda name: None if name == "sqlalchemy" else name)
    line = one(doctor.flag_gems())
    assert (line.ok, line.wanted, line.remedy) == (False, "sqlalchemy", "pip install sqlalchemy")


def test_a_numpy_that_all_take_is_fine(gems: Site) -> None:
    gems.install("numpy", "1.26.4")
    gems.install("scipy", "1.14.0", "numpy <2.3,>=1.23.5")
    line = one(doctor.numpy())
    assert line.ok is True
    assert line.found == "1.26.4; flag-gems 5.0.2 asks for ==1.26.4"


def test_what_the_pinned_numpy_breaks_is_named_with_the_numpy_that_mends_it(gems: Site) -> None:
    gems.install("numpy", "1.26.4")
    gems.install("pandas", "3.0.0", "numpy>=1.26.0; python_version < '3'", "numpy>=2.0.2; python_version >= '3'")
    gems.install("ml-dtypes", "0.6.0", "numpy>=2", "numpy>=2.1 ; extra == 'new'", "numpydoc")
    gems.install("mistral-common", "1.8", "numpy<2.4,>=1.25")
    line = one(doctor.numpy())
    assert line.ok is False
    assert line.found.startswith("1.26.4, as flag-gems 5.0.2 may have asked (==1.26.4); it breaks ")
    assert "ml-dtypes (>=2), pandas (>=2.0.2)" in line.found
    assert line.remedy == "pip install 'numpy<2.4,>=2.0.2'"


def test_all_lines_of_what_wants_a_numpy_count(gems: Site) -> None:
    gems.install("numpy", "2.5.5")
    gems.install("numba", "0.65.1", "numpy>=1.22", "numpy<2.5,>=1.22")
    line = one(doctor.numpy())
    assert (line.ok, line.found) == (False, "2.5.5; it breaks numba (<2.5,>=1.22)")
    assert line.remedy == "pip install 'numpy<2.5,>=1.22'"


def test_a_numpy_past_the_pin_that_all_others_take_is_only_worth_knowing(gems: Site) -> None:
    gems.install("numpy", "2.3.1")
    gems.install("pandas", "3.0.0", "numpy>=2.0.2")
    assert one(doctor.numpy()).ok is None
