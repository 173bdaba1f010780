from __future__ import annotations

import os
from pathlib import Path

import pytest

from sglang_fl.errors import SettingsError
from sglang_fl.settings import Settings, load_settings
from sglang_fl.settings.yaml_file import read_yaml
from tests.core.settings.samples import load_yaml


def test_missing_file_is_told_with_its_absolute_path_and_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_CONFIG": "missing.yaml"})
    assert str(tmp_path / "missing.yaml") in caught.value.asked
    assert f"working directory: {tmp_path}" in caught.value.found


def test_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings({"SGLANG_FL_CONFIG": str(tmp_path)})


def test_a_pipe_is_refused_since_each_process_reads_the_file() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"strict: true")
    os.close(writer)
    try:
        with pytest.raises(SettingsError, match="found a pipe, which can be read once"):
            load_settings({"SGLANG_FL_CONFIG": f"/dev/fd/{reader}"})
    finally:
        os.close(reader)


def test_the_null_device_sets_nothing() -> None:
    assert load_settings({"SGLANG_FL_CONFIG": os.devnull}) == Settings(config=Path(os.devnull))


@pytest.mark.parametrize("content", ["", "# nothing but an explanation\n", "---\n", "{}"])
def test_file_without_content_sets_nothing(content: str, tmp_path: Path) -> None:
    loaded = load_yaml(tmp_path, content)

    assert loaded == Settings(config=tmp_path / "my.yaml")


@pytest.mark.parametrize(("content", "found"), [("- prefer", "list"), ("prefer", "str"), ("3", "int"), ("[]", "list")])
def test_content_that_is_no_mapping_is_told(content: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="asked for a mapping from") as caught:
        load_yaml(tmp_path, content)
    assert found in caught.value.found


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("strict: true\nprefer: [vendor", "line 2, column 16"),
        ("strict: true\n\tprefer: vendor", "line 2, column 1"),
        ("strict: true\n---\nprefer: vendor", "line 2, column 1"),
        ("prefer: !!python/name:os.system", "line 1, column 9"),
        ("? [a, b]\n: 1", "line 1, column 3"),
    ],
)
def test_error_of_syntax_is_told_with_its_line(content: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, content)
    assert caught.value.asked == f"YAML from {tmp_path / 'my.yaml'}, {place}"


def test_a_date_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"asked for YAML from .*my.yaml; found an error there: day is out of range"
    ):
        load_yaml(tmp_path, "trace_dir: 2026-02-30")


@pytest.mark.parametrize("content", [b"prefer: \xff\xfe\x00", b"prefer: \x00"])
def test_file_that_is_no_text_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="asked for YAML from") as caught:
        load_settings({"SGLANG_FL_CONFIG": str(path)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("prefer: vendor\nstrict: true\nprefer: flagos", 3),
        ("prefer: vendor\n'prefer': vendor", 2),
        ("op_backends:\n  rms_norm: vendor\n  silu_and_mul: vendor\n  rms_norm: flagos", 4),
    ],
)
def test_key_that_is_set_twice_is_told_with_its_line(content: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is set a second time") as caught:
        load_yaml(tmp_path, content)
    assert f"line {line}, column" in caught.value.asked


def test_anchors_and_merged_mappings_are_not_set_twice(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("one: &one {a: 1, b: 2}\ntwo: &two {<<: *one, b: 3}\nthree: {<<: *two, a: 4}")

    assert read_yaml(path, "test") == {"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}, "three": {"a": 4, "b": 3}}
