"""libflagcx is looked for where it may be, and is used only when everything is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_fl_flagcx.abi import PROTOTYPES, TEXTS, UNIQUE_ID_BYTES
from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.library import Library
from sglang_fl_flagcx.location import NAME
from tests.flagcx.conftest import StandIn


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package ``flagcx`` that must not be imported."""
    package = folder / "site" / "flagcx"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_the_version_is_the_library_s(standin: StandIn) -> None:
    assert Library.load(standin.file).version == "1.2.3"


def test_a_unique_id_keeps_all_its_bytes(standin: StandIn) -> None:
    unique_id = Library.load(standin.file).unique_id()
    assert len(unique_id) == UNIQUE_ID_BYTES == 256
    assert unique_id[:252] == bytes(range(252))


@pytest.mark.parametrize("folder", ["", "lib", "build/lib"])
def test_the_user_may_name_a_folder(standin: StandIn, tmp_path: Path, folder: str) -> None:
    home = tmp_path / "home"
    (home / folder).mkdir(parents=True)
    shutil.copy(standin.file, home / folder / NAME)
    assert Library.load(home).file == str(home / folder / NAME)


def test_a_path_that_has_none_is_not_made_up_for_elsewhere(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(standin.file, package(tmp_path, monkeypatch) / NAME)
    with pytest.raises(FlagCXError) as caught:
        Library.load(tmp_path / "nowhere")
    assert caught.value.found == f"nothing in FLAGCX_PATH, {tmp_path}/nowhere, which does not exist"
    with pytest.raises(FlagCXError, match=r"FLAGCX_PATH, .*/site, which has no libflagcx.so"):
        Library.load(tmp_path / "site")


def test_an_installed_package_is_used_and_not_imported(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch)
    shutil.copy(standin.file, folder / NAME)
    assert Library.load(None).file == str(folder / NAME)


@pytest.mark.usefixtures("nowhere")
def test_where_there_is_none_it_says_where_it_looked() -> None:
    with pytest.raises(FlagCXError) as caught:
        Library.load(None)
    assert "the package flagcx, which is not installed" in caught.value.found
    assert "the loader's path (libflagcx-that-is-not-there.so: cannot open shared object file" in caught.value.found
    assert "FLAGCX_PATH" in caught.value.do


def test_the_loader_s_path_is_used(standin: StandIn) -> None:
    code = "from sglang_fl_flagcx.library import Library; print(Library.load(None).file)"
    environ = {**os.environ, "LD_LIBRARY_PATH": str(standin.file.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == NAME, done.stderr


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("no library")
    with pytest.raises(FlagCXError, match="nothing that loads in FLAGCX_PATH"):
        Library.load(tmp_path)


def test_a_library_that_lacks_a_function_is_refused_by_name(compiled: Path, tmp_path: Path) -> None:
    older = tmp_path / NAME
    # As a library of before 0.13 would be: the one name is another.
    older.write_bytes(compiled.read_bytes().replace(b"flagcxDeviceHandleInit\0", b"flagcxDeviceHandleOld_\0"))
    with pytest.raises(FlagCXError, match="a library without flagcxDeviceHandleInit in FLAGCX_PATH"):
        Library.load(older)


def test_every_function_that_is_bound_is_called_with_the_types_of_the_header(standin: StandIn) -> None:
    functions = Library.load(standin.file).functions
    assert functions.keys() == PROTOTYPES.keys()
    assert TEXTS.keys() == {"flagcxGetErrorString", "flagcxGetLastError"}
    with pytest.raises(Exception, match="argument 3"):
        functions["flagcxAllReduce"](1, 2, "three", 7, 0, None, None)


def test_a_result_that_the_header_does_not_have_is_told_as_a_number(standin: StandIn) -> None:
    library = Library.load(standin.file)
    standin.fail("flagcxGetUniqueId", 77)
    with pytest.raises(FlagCXError, match=r"a result that flagcx.h does not have \(77\), other words"):
        library.unique_id()
