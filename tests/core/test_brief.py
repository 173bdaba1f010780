from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl.brief import LONGEST, brief
from sglang_fl.records import (
    AtenOp,
    BackendImplKind,
    Communicator,
    Diagnosis,
    OpImpl,
    Platform,
    Setting,
)
from sglang_fl.settings import load_settings

IMPL = OpImpl(op="silu_and_mul", impl_id="vendor.x", kind=BackendImplKind.REFERENCE, fn="m:f")
ATEN = AtenOp(name="add.Tensor", by="acme.add", replaced=True, reason="")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


class _Refuses:
    def __repr__(self) -> str:
        raise RuntimeError


@given(anything)
def test_any_value_is_short(value: Any) -> None:
    assert 0 < len(brief(value)) <= LONGEST


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (IMPL, "silu_and_mul/vendor.x"),
        ([IMPL], "[silu_and_mul/vendor.x]"),
        (Platform(name="p", device_type="cpu", is_available=bool, total_memory=int), "Platform(p)"),
        (Communicator(name="c", create="m:f"), "Communicator(c)"),
        (load_settings({"SGLANG_FL_PREFER": "vendor", "SGLANG_FL_STRICT": "1"}), "Settings(prefer, strict)"),
        (Setting(key="use_x", type=bool, default=False, help="x"), "Setting(use_x)"),
        ([ATEN, replace(ATEN, replaced=False)], "[add.Tensor, not add.Tensor]"),
        (Diagnosis(subject="CANN", ok=True, found="8.0"), "Diagnosis(CANN: 8.0)"),
    ],
)
def test_a_record_is_told_by_what_names_it(record: object, text: str) -> None:
    assert brief(record) == text


def test_a_value_that_refuses_is_told_by_its_type() -> None:
    assert "_Refuses" in brief(_Refuses())


def test_a_class_that_only_shares_a_records_name_is_told_by_its_type() -> None:
    assert brief(type("OpImpl", (), {})()) == "<OpImpl>"


def test_a_tensor_is_told_without_its_values() -> None:
    assert brief(torch.zeros(2, 3, device="meta")) == "Tensor([2, 3], torch.float32)"


def test_a_generator_is_not_consumed() -> None:
    numbers = iter([1, 2])
    brief(numbers)
    assert list(numbers) == [1, 2]


def test_a_long_list_is_cut() -> None:
    assert brief([["x" * 1000] * 1000] * 1000).endswith("…")
