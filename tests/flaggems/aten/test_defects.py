from __future__ import annotations

import pytest

from sglang_fl_flaggems.aten.defects import EXAMINED, silently_wrong, unexamined
from sglang_fl_flaggems.aten.table import Table, read_release

from .wheel import search_path

RIGHT_ALL_THE_SAME = {"remainder.Scalar", "remainder.Scalar_Tensor", "remainder_.Scalar"}
"""Overloads that share their function with one that is wrong, but not the calls for which it is."""


def test_the_release_that_the_tests_fetch_is_the_one_examined() -> None:
    assert read_release(search_path() / "flag_gems") == EXAMINED


@pytest.mark.parametrize("device_type", ["cuda", "npu"])
def test_every_overload_that_is_wrong_is_one_that_the_release_has(released: Table, device_type: str) -> None:
    assert silently_wrong(EXAMINED, device_type).keys() <= released.keys()


def test_what_goes_to_a_function_that_is_wrong_is_wrong(released: Table) -> None:
    wrong = silently_wrong(EXAMINED, "cuda")
    functions = {released[overload].functions[-1] for overload in wrong}
    theirs = {key for key, entry in released.items() if entry.functions[-1] in functions}
    assert theirs == wrong.keys() | RIGHT_ALL_THE_SAME


def test_what_is_wrong_on_a_chip_counts_for_its_device_type_alone() -> None:
    assert "mul.Tensor" in silently_wrong(EXAMINED, "cuda")
    assert "mul.Tensor" not in silently_wrong(EXAMINED, "npu")
    assert silently_wrong(EXAMINED, "npu").items() <= silently_wrong(EXAMINED, "cuda").items()


OTHER = pytest.mark.parametrize("release", [None, "5.0.3", "5.3.4.dev20260809+g90eed79f3"])
BUILD = pytest.mark.parametrize("release", [EXAMINED, f"{EXAMINED}+cu130", f"{EXAMINED}.dev1"])


@OTHER
def test_a_release_that_was_not_examined_is_taken_to_be_as_wrong_and_the_reason_tells(release: str | None) -> None:
    examined, other = silently_wrong(EXAMINED, "cuda"), silently_wrong(release, "cuda")
    assert other == {overload: f"{what} (seen in flag-gems 5.0.2)" for overload, what in examined.items()}


@OTHER
def test_a_release_that_was_not_examined_is_worth_one_warning(release: str | None) -> None:
    (warning,) = unexamined(release)
    assert "was made for flag-gems 5.0.2 and not compared with" in warning
    assert (release or "names no release") in warning


@BUILD
def test_a_build_of_the_release_examined_is_that_release(release: str) -> None:
    assert silently_wrong(release, "cuda") == silently_wrong(EXAMINED, "cuda")
    assert list(unexamined(release)) == []
