from __future__ import annotations

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_fl.cli.output import show, show_error, show_json, table
from sglang_fl.errors import SettingsError

CELLS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=300)
ONE_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONE_FIXTURE
@given(st.lists(CELLS, min_size=1, max_size=5))
def test_piped_table_shows_every_cell_whole_and_as_it_is(capsys: pytest.CaptureFixture[str], cells: list[str]) -> None:
    show(table("title", [f"column {i}" for i in range(len(cells))], [cells]))

    row = capsys.readouterr().out.splitlines()[-2]
    assert all(cell in row for cell in cells)


@ONE_FIXTURE
@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_json_is_one_document_that_reads_back(capsys: pytest.CaptureFixture[str], document: dict[str, object]) -> None:
    show_json(document)

    assert json.loads(capsys.readouterr().out) == document


@ONE_FIXTURE
@given(CELLS, CELLS, CELLS, CELLS)
def test_error_is_four_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], who: str, asked: str, found: str, do: str
) -> None:
    show_error(SettingsError(who, asked=asked, found=found, do=do))

    told = capsys.readouterr()
    assert told.out == ""
    assert [line.rstrip() for line in told.err.splitlines()] == [
        f"error  {who}",
        f"asked  {asked}",
        f"found  {found}",
        f"to do  {do}",
    ]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_window_breaks_prose_and_no_id(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    window = io.StringIO()
    monkeypatch.setattr(window, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", window)
    monkeypatch.setenv("COLUMNS", str(columns))
    ids, prose = ["gelu_tanh_and_mul", "reference.torch", "sglang-fl-core"], "the driver acme.ko is not loaded"

    show(table("title", ["op", "implementation", "distribution", "reason"], [[*ids, prose]]))

    printed = window.getvalue()
    assert all(text in printed for text in ids)
    assert (prose in printed) == (columns == 200)
    assert all(word in printed for word in prose.split())
