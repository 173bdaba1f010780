"""The suite catches what it is there to catch: each seeded fault, by the test that is named for it."""

from __future__ import annotations

import pytest

from sglang_fl.testing import suite
from sglang_fl.testing.failure import Nonconformance
from sglang_fl.testing.under_test import OpUnderTest

from .faults import FAULTS, Fault

L3 = {name for name in suite.TESTS if "L3" in {mark.name for mark in getattr(suite, name).pytestmark}}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_seeded_fault_is_caught_by_the_test_named_for_it(fault: Fault) -> None:
    test = getattr(suite, fault.caught_by)
    with pytest.raises((Nonconformance, RuntimeError, AttributeError)):
        test(OpUnderTest(fault.impl, shrink=False), *fault.parameters)


def test_every_test_of_l3_catches_a_fault() -> None:
    assert {fault.caught_by for fault in FAULTS} == L3


def test_what_does_not_fail_every_time_is_told_as_plainly() -> None:
    (once,) = [fault for fault in FAULTS if str(fault) == "rounds_at_random"]
    with pytest.raises(Nonconformance, match="other bits the second time"):
        suite.test_the_same_call_gives_the_same_bits(OpUnderTest(once.impl))
