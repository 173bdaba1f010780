from __future__ import annotations

import pytest

from sglang_fl_flaggems.aten.defects import LATEST_EXAMINED, silently_wrong
from sglang_fl_flaggems.aten.table import Table, read_release

from .wheel import search_path

RIGHT_ALL_THE_SAME = {"remainder.Scalar", "remainder.Scalar_Tensor", "remainder_.Scalar"}
"""Overloads that share their function with one that is wrong, but not the calls for which it is."""


def test_the_release_that_the_tests_fetch_is_the_latest_examined() -> None:
    assert read_release(search_path() / "flag_gems") == LATEST_EXAMINED


@pytest.mark.parametrize("device_type", ["cuda", "npu", None])
def test_every_overload_that_is_wrong_is_one_that_the_release_has(released: Table, device_type: str | None) -> None:
    assert silently_wrong(LATEST_EXAMINED, device_type).keys() <= released.keys()


def test_what_goes_to_a_function_that_is_wrong_is_wrong(released: Table) -> None:
    wrong = silently_wrong(LATEST_EXAMINED, "cuda")
    functions = {released[overload].functions[-1] for overload in wrong}
    theirs = {key for key, entry in released.items() if entry.functions[-1] in functions}
    assert theirs == wrong.keys() | RIGHT_ALL_THE_SAME


def test_what_is_wrong_on_a_chip_counts_for_its_device_type_alone() -> None:
    assert "mul.Tensor" in silently_wrong(LATEST_EXAMINED, "cuda")
    assert "mul.Tensor" not in silently_wrong(LATEST_EXAMINED, "npu")
    assert silently_wrong(LATEST_EXAMINED, None).items() <= silently_wrong(LATEST_EXAMINED, "cuda").items()


@pytest.mark.parametrize("release", [None, "5.0.3", "5.3.4.dev20260809+g90eed79f3"])
def test_of_a_release_that_was_not_examined_nothing_is_said(release: str | None) -> None:
    assert silently_wrong(release, "cuda") == {}


@pytest.mark.parametrize("release", ["5.0.0", "5.0.2+cu130"])
def test_an_earlier_release_and_a_build_of_it_are_as_wrong_as_the_one_examined(release: str) -> None:
    assert silently_wrong(release, "cuda") == silently_wrong(LATEST_EXAMINED, "cuda")
