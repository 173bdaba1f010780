from __future__ import annotations

from pathlib import Path

import pytest

from sglang_fl import SglangFlError
from sglang_fl_flaggems.aten.record import recorder


def add(a: int, b: int, *, alpha: int = 1) -> int:
    return a + alpha * b


LINE = f"[DEBUG] {__name__}.add: aten::add.Tensor\n"


def test_a_recorded_function_is_the_same_but_for_the_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "aten.txt"
    recorded = recorder(path, once=False)("add.Tensor", add)
    assert recorded.__name__ == "add"  # FlagGems' own lists go by it
    assert path.read_text() == ""
    assert recorded(1, b=2, alpha=3) == 7
    assert recorded(1, 1) == 2
    assert path.read_text() == LINE * 2


def test_once_is_once_for_each_op(tmp_path: Path) -> None:
    wrap = recorder(tmp_path / "aten.txt", once=True)
    for recorded in (wrap("add.Tensor", add), wrap("add_.Tensor", add)):
        for _ in range(3):
            recorded(1, 2)
    assert (tmp_path / "aten.txt").read_text() == LINE + LINE.replace("add.Tensor", "add_.Tensor")


def test_workers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "aten.txt"
    one, other = (recorder(path, once=True)("add.Tensor", add) for _ in range(2))
    one(1, 2)
    other(1, 2)
    assert path.read_text() == LINE * 2


def test_without_a_path_it_is_where_flaggems_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recorder(None, once=True)("add.Tensor", add)(1, 2)
    assert (tmp_path / ".flaggems" / "oplist.log").read_text() == LINE


def test_what_the_function_raises_comes_through_after_the_line(tmp_path: Path) -> None:
    recorded = recorder(tmp_path / "aten.txt", once=True)("add.Tensor", add)
    with pytest.raises(TypeError):
        recorded()
    assert (tmp_path / "aten.txt").read_text() == LINE


def test_a_full_disk_stops_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert recorder(Path("/dev/full"), once=True)("add.Tensor", add)(1, 2) == 3
    assert "No space left" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SglangFlError, match=r"a record of calls in .*file/a.txt \(flaggems_log_path\)"):
        recorder(tmp_path / "file" / "a.txt", once=True)
