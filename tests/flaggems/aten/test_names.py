from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl_flaggems.aten.names import covered, nearest_names
from sglang_fl_flaggems.aten.table import Entry, Table, read_table

from .wheel import search_path

KEYS = st.deferred(lambda: st.sampled_from(sorted(read_table(search_path() / "flag_gems"))))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("add", {"add.Tensor", "add_.Tensor"}),
        ("add_", {"add_.Tensor"}),
        ("add.Tensor", {"add.Tensor"}),
        ("aten::add.Tensor", {"add.Tensor"}),
        ("aten.add.Tensor", {"add.Tensor"}),
        ("torch.ops.aten.add.Tensor", {"add.Tensor"}),
        ("aten::add", {"add.Tensor", "add_.Tensor"}),
        ("mm", {"mm", "mm.out"}),
        ("mm.default", {"mm"}),
        ("mm.out", {"mm.out"}),
        ("softmax", {"_softmax"}),
        ("_softmax", {"_softmax"}),
        ("fill_scalar_", {"fill_.Scalar"}),
        ("fill_scalar", {"fill.Scalar", "fill.Scalar_out", "fill_.Scalar"}),
        ("__or__", {"__or__.Scalar", "__or__.Tensor", "__ior__.Scalar", "__ior__.Tensor"}),
        ("__ior__", {"__ior__.Scalar", "__ior__.Tensor"}),
        ("zeros", {"zeros"}),
        ("zero", {"zero", "zero_", "zero.out"}),
        ("silu_and_mul", set()),
        ("add.Scalar", set()),
        ("add.", set()),
        ("", set()),
        ("aten::", set()),
    ],
)
def test_a_name_covers(released: Table, name: str, keys: set[str]) -> None:
    assert covered(name, released) == keys


@given(KEYS)
def test_an_op_is_covered_by_its_overload_its_form_its_canonical_name_and_its_function(
    released: Table, key: str
) -> None:
    overload = key if "." in key else f"{key}.default"
    assert covered(overload, released) == covered(f"aten::{overload}", released) == {key}
    op = key.partition(".")[0]
    for name in (op, *released[key].functions):
        canonical = name if name.endswith("__") else name.removesuffix("_out").removesuffix("_")
        assert key in covered(name, released) <= covered(canonical, released)


@given(KEYS)
def test_a_name_without_overload_covers_every_overload_of_that_op(released: Table, key: str) -> None:
    op = key.partition(".")[0]
    assert {other for other in released if other.partition(".")[0] == op} <= covered(op, released)


def test_canonical_names_are_pytorchs_own_for_its_in_place_ops(released: Table) -> None:
    in_place = {key.partition(".")[0] for key in released if key.partition(".")[0].endswith("_")}
    for op in in_place:
        functional = op[:2] + op[3:] if op.startswith("__i") else op.rstrip("_")
        if hasattr(torch.ops.aten, functional) and covered(functional, released):
            assert covered(op, released) <= covered(functional, released)


@given(st.text() | st.from_regex(r"[a-z_]{1,12}(\.[A-Za-z]{1,8})?", fullmatch=True))
def test_no_text_is_a_name_by_accident_and_each_gets_a_hint(released: Table, name: str) -> None:
    keys = covered(name, released)
    assert keys <= released.keys()
    assert "explain --aten" in nearest_names(name, released)


@given(KEYS, st.integers(min_value=0))
def test_a_misspelt_overload_is_answered_with_names_that_cover_something(released: Table, key: str, place: int) -> None:
    place %= len(key)
    hint = nearest_names(key[:place] + key[place + 1 :], released)
    proposed = [word for word in hint.split("?")[0].split("'") if covered(word, released)]
    assert proposed or "did you mean" not in hint


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("add.Scalar", "'add.Tensor'"),
        ("sofmax", "'softmax'"),
        ("mul.tensor", "'mul.Tensor'"),
        ("silu_and_mul", "op_backends"),
        ("aten::ad", "'add'"),
        ("ADD", "'add'"),
        ("torch.add", "'add'"),
        ("torch.ops.aten.add.tensor", "'add.Tensor'"),
        ("ATEN.MM.OUT", "'mm.out'"),
        ("aten::silu_and_mul", "of silu_and_mul, which is no op of PyTorch's own, with op_backends"),
    ],
)
def test_the_nearest_names_are_proposed(released: Table, name: str, near: str) -> None:
    assert near in nearest_names(name, released)


def test_an_op_that_is_registered_twice_is_covered_by_both_functions() -> None:
    table = {"ne_.Tensor": Entry("ne_.Tensor", ("ne_", "not_equal_"))}
    assert covered("not_equal_", table) == covered("not_equal", table) == covered("ne", table) == {"ne_.Tensor"}
