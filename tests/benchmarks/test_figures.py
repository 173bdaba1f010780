from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import aten, ops
from benchmarks.figures import Figures, at_least, parser, seconds, some_of, worst

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def status_of(figures: Figures) -> object:
    with pytest.raises(SystemExit) as ending:
        figures.finish()
    return ending.value.code


@given(value=finite, bound=finite)
def test_a_figure_is_ok_exactly_when_it_keeps_its_bound(value: float, bound: float) -> None:
    for kept, limits in (
        (value <= bound, {"at_most": bound}),
        (value >= bound, {"at_least": bound}),
        (value == bound, {"equals": bound}),
    ):
        figures = Figures()
        figures.add("f", value, "us", **limits)
        assert status_of(figures) == (0 if kept else 1)


@pytest.mark.parametrize("limit", ["at_most", "at_least", "equals"])
def test_not_a_number_keeps_no_bound(limit: str) -> None:
    figures = Figures()
    figures.add("f", math.nan, "us", **{limit: 1.0})
    assert status_of(figures) == 1


@given(values=st.lists(finite, min_size=1), data=st.data())
def test_the_worst_is_the_largest_or_not_a_number_wherever_it_stands(values: list[float], data: st.DataObject) -> None:
    assert worst(values) == max(values)
    values.insert(data.draw(st.integers(0, len(values))), math.nan)
    assert math.isnan(worst(values))


def test_a_line_has_name_value_unit_bound_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures()
    figures.add("call", 0.25, "us", at_most=0.2)
    figures.add("prompts", 16, "prompts", equals=16)
    figures.add("speed", 1234.5, "tokens/s")
    assert capsys.readouterr().out.splitlines() == [
        "figure call 0.25 us bound <=0.2 missed",
        "figure prompts 16 prompts bound ==16 ok",
        "figure speed 1234.5 tokens/s bound - ok",
    ]


def test_one_missed_bound_among_kept_ones_fails_the_run() -> None:
    figures = Figures()
    figures.add("kept", 1, "s", at_most=2)
    figures.add("missed", 3, "s", at_most=2)
    figures.add("kept too", 1, "s", at_most=2)
    assert status_of(figures) == 1


def test_a_run_without_figures_fails() -> None:
    assert status_of(Figures()) == 1


def test_a_figure_with_two_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="one bound, not <=1 and >=0"):
        Figures().add("f", 0.5, "s", at_most=1, at_least=0)


def test_the_json_file_tells_what_was_measured_on_what(tmp_path: Path) -> None:
    file = parser("").parse_args(["--json", str(tmp_path / "figures.json")]).json
    Figures(file).add("call", 0.25, "us", at_most=0.2)  # that it was stopped then is no matter
    report = json.loads(file.read_text())
    assert report["figures"] == [{"name": "call", "value": 0.25, "unit": "us", "bound": "<=0.2", "ok": False}]
    ours = {"sglang-fl-core", "sglang-fl-cuda", "sglang-fl-flaggems", "sglang-fl-flagcx"}
    assert set(report["versions"]) == {"python", "torch", "triton", "sglang", "sglang-kernel", "flag-gems", *ours}
    assert all(report[key] for key in ("date", "command", "device", "cpu"))


def test_an_argument_takes_the_names_that_there_are_and_tells_them_for_any_other() -> None:
    read = some_of("graphs", "eager", 16384)
    assert read("eager,16384") == ["eager", "16384"]
    with pytest.raises(argparse.ArgumentTypeError, match="no such: egaer; there are graphs, eager, 16384"):
        read("graphs,egaer")


def test_a_file_in_a_folder_that_is_not_there_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser("").parse_args(["--json", str(tmp_path / "none" / "figures.json")])
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


@pytest.mark.parametrize("main", [aten.main, ops.main])
def test_so_is_one_for_rows(main: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--rows", str(tmp_path / "none" / "rows.csv")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_a_number_that_is_too_small_is_refused() -> None:
    assert at_least(2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="-1 is less than 2"):
        at_least(2)("-1")


@given(value=st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_a_length_of_time_is_read_as_it_is(value: float) -> None:
    assert seconds(repr(value)) == value


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "soon"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    options = parser("")
    options.add_argument("--seconds", type=seconds)
    with pytest.raises(SystemExit):
        options.parse_args([f"--seconds={text}"])
