from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sglang_fl import SglangFlError
from sglang_fl_flaggems.aten.table import Entry, Table, of_release, read_release, read_table

NEWER = """
import torch

AUTOGRAD = torch._C.DispatchKey.Autograd.name
_FULL_CONFIG = (
    ("_scaled_mm", scaled_mm, lambda: torch_ge("2.5")),
    ("ctc_loss.IntList", ctc_loss, None, (AUTOGRAD,)),
    ("ne_.Tensor", ne_),
    ("ne_.Tensor", not_equal_),
    ("range", range_op),
)
FULL_CONFIG_BY_FUNC = {}
for _item in _FULL_CONFIG:
    FULL_CONFIG_BY_FUNC.setdefault(_item[1].__name__, []).append(_item)
"""
"""The forms that rows have in releases after 5.0.2: one op twice, further dispatch keys."""


def package(folder: Path, source: str) -> Path:
    (folder / "__init__.py").write_text(source)
    return folder


def test_the_release_has_the_ops_that_every_model_calls(released: Table) -> None:
    assert len(released) == 433
    assert released["add.Tensor"] == Entry("add.Tensor", ("add",))
    assert released["_softmax"] == Entry("_softmax", ("softmax",))
    assert released["div.Tensor"].functions == ("true_divide",)
    assert {"mm", "bmm", "embedding", "cat", "index.Tensor", "fill_.Scalar"} <= released.keys()


def test_a_condition_of_flaggems_own_is_kept_as_it_is_written(released: Table) -> None:
    conditional = {key: entry.condition for key, entry in released.items() if entry.condition}
    assert conditional.keys() == {"_to_copy", "copy_"}
    assert all(ast.parse(condition) and "2.4" in condition for condition in conditional.values())


def test_the_newer_forms_are_read(tmp_path: Path) -> None:
    assert read_table(package(tmp_path, NEWER)) == {
        "_scaled_mm": Entry("_scaled_mm", ("scaled_mm",), "torch_ge('2.5')"),
        "ctc_loss.IntList": Entry("ctc_loss.IntList", ("ctc_loss",)),
        "ne_.Tensor": Entry("ne_.Tensor", ("ne_", "not_equal_")),
        "range": Entry("range", ("range_op",)),
    }


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", "no _FULL_CONFIG"),
        ("_FULL_CONFIG = collect()", r"_FULL_CONFIG is collect\(\), no list"),
        ("_FULL_CONFIG = (add,)", "ValueError"),
        ("_FULL_CONFIG = ((name, add),)", "ValueError"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error_with_the_release_to_take(
    tmp_path: Path, source: str, found: str
) -> None:
    with pytest.raises(SglangFlError, match=rf"{found}.*flag-gems==5.0.2"):
        read_table(package(tmp_path, source))


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SglangFlError, match="FileNotFoundError"):
        read_table(tmp_path)


@pytest.mark.parametrize("release", ["4.2.0", "5.0.2", "5.0.2+cu130"])
def test_a_release_is_read_as_it_is_written(tmp_path: Path, release: str) -> None:
    assert read_release(package(tmp_path, f'import torch\n\n__version__ = "{release}"\n')) == release


@pytest.mark.parametrize("source", ["", "try:\n    __version__ = '5.0.2'\nexcept: ...", "__version__ = 'unknown'"])
def test_what_is_no_version_that_the_source_tells_is_an_unknown_release(tmp_path: Path, source: str) -> None:
    assert read_release(package(tmp_path, source)) is None
    assert read_release(tmp_path / "nowhere") is None


@pytest.mark.parametrize("build", ["5.0.2", "5.0.2+cu130", "5.0.2.dev3", "5.0.2.dev3+g90eed79f3"])
def test_a_build_is_of_its_release(build: str) -> None:
    assert str(of_release(build)) == "5.0.2"
