from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_fl.trace_file import TraceFile
from sglang_fl.trace_records import Damage, Record, Start, TraceError, read_records, trace_files

START = {"host": "h", "argv": ["serve"], "versions": {"python": "3"}}
CALL = {
    "op": "rms_norm",
    "implementation": "a",
    "layer_class": "RMSNorm",
    "layer": None,
    "shapes": {"x": [2, "s0"]},
    "dtypes": {"x": "float32"},
    "duration_ns": 5,
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
events = st.lists(st.tuples(st.sampled_from(["settings", "späť", '"\n']), st.dictionaries(st.text(), plain)))


def valid_file(directory: Path, written: list[tuple[str, dict[str, Any]]]) -> Path:
    file = TraceFile(directory, lambda: START)
    for kind, fields in written:
        file.write(kind, fields)
    [path] = directory.iterdir()
    return path


def altered(path: Path, content: bytes) -> list[Record]:
    path.write_bytes(content)
    return list(read_records(path))


@settings(deadline=None)  # it writes files
@given(events, st.floats(0, 1))
def test_any_prefix_of_a_file_yields_its_whole_lines(written: list[tuple[str, dict[str, Any]]], part: float) -> None:
    damage = Damage()
    with tempfile.TemporaryDirectory() as directory:
        path = valid_file(Path(directory), written)
        whole = list(read_records(path))
        content = path.read_bytes()
        prefix = content[: round(part * len(content))]
        path.write_bytes(prefix)
        records = list(read_records(path, damage))
    tail = prefix.rpartition(b"\n")[2]
    ended = prefix.count(b"\n")
    last_is_whole = tail != b"" and content.startswith(b"\n", len(prefix))  # it lacks its newline only
    assert records == whole[: ended + last_is_whole]
    assert damage == Damage(cut=tail != b"" and not last_is_whole, unreadable=0)


@settings(deadline=None)  # it writes files
@given(events)
def test_what_was_written_is_read_back(written: list[tuple[str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        start, *records = read_records(valid_file(Path(directory), written))
    assert isinstance(start, Start)
    assert (start.host, start.argv, start.versions) == ("h", ("serve",), {"python": "3"})
    reserved = set(Record.model_fields)
    assert [(record.kind, record.fields()) for record in records] == [
        (kind, {name: value for name, value in fields.items() if name not in reserved}) for kind, fields in written
    ]


@settings(deadline=None)  # it writes files
@given(events, st.binary(min_size=1).filter(lambda junk: junk.strip() and b"\n" not in junk))
def test_a_line_of_something_else_is_counted_and_the_others_are_read(
    written: list[tuple[str, dict[str, Any]]], junk: bytes
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = valid_file(Path(directory), [*written, ("last", {})])
        first, *others = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + junk + b"\n" + b"".join(others))
        damage = Damage()
        kinds = [record.kind for record in read_records(path, damage)]
    assert kinds == ["start", *(kind for kind, _ in written), "last"]
    assert damage == Damage(cut=False, unreadable=1)


def test_a_record_of_a_known_kind_without_its_fields_is_unreadable(tmp_path: Path) -> None:
    lacking = {name: value for name, value in CALL.items() if name != "duration_ns"}
    path = valid_file(tmp_path, [("call", CALL), ("call", lacking), ("call", {**CALL, "duration_ns": "soon"})])
    damage = Damage()
    assert [record.kind for record in read_records(path, damage)] == ["start", "call"]
    assert damage.unreadable == 2


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b'{"a": 1}\n',
        b'{"kind": "x"}\n',
        b"[1, 2]\n3\n",
        b"\x00\xff\x93NUMPY\n",
        b"[" * 200_000,
        b"9" * 10_000,
        b'{"kind":["start"]}',
    ],
    ids=lambda content: repr(content[:10]),
)
def test_a_file_of_something_else_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(TraceError, match=f"{path}.*something else"):
        altered(path, content)


def test_a_file_cut_before_its_first_record_is_a_trace(tmp_path: Path) -> None:
    assert altered(tmp_path / "x.jsonl", b"") == []
    assert altered(tmp_path / "x.jsonl", b'{"kind":"st') == []


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=f"{tmp_path}/no.*No such file"):
        list(read_records(tmp_path / "no"))


def test_a_directory_stands_for_its_files_and_none_is_read_twice(tmp_path: Path) -> None:
    names = ["b.jsonl", "a.jsonl", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    assert trace_files([tmp_path / "b.jsonl", tmp_path]) == [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]


def test_a_directory_without_files_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TraceError, match=f"{tmp_path}.*without a .jsonl file"):
        trace_files([tmp_path])
