"""L7 catches an op that is slower than the reference."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from sglang_fl.testing import suite
from sglang_fl.testing.requirements import Requirements
from sglang_fl.testing.subject import Subject


@pytest.fixture(scope="module")
def reference() -> Subject:
    return Subject.find(Requirements(plugin="reference", platform="cpu", implementation="reference.torch"))


def test_an_op_that_is_slower_than_the_reference_is_caught(reference: Subject) -> None:
    own = reference.op("silu_and_mul")

    def slow(obj: Any, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return own.fn(obj, x)

    op = replace(own, impl=replace(own.impl, fn=slow))
    with pytest.raises(AssertionError, match=r"µs a call; the reference takes"):
        suite.test_it_is_not_slower_than_the_reference(reference, op, 1)
    assert "of the reference's time" in op.notes[0]


def test_the_reference_is_not_raced_against_itself(reference: Subject) -> None:
    with pytest.raises(pytest.skip.Exception, match="it is the reference"):
        suite.test_it_is_not_slower_than_the_reference(reference, reference.op("silu_and_mul"), 1)
