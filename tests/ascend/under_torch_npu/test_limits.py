"""What an op accepts, and nothing else, is what the documentation lets its operators take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.placed import Layout
from tests.ascend.under_torch_npu.subjects import OPS, subject

LEADS = st.sampled_from([(), (1,), (3,), (2, 3), (0,), (3, 0), (1,) * 7, (1,) * 8])


@pytest.mark.parametrize("op", OPS)
def test_a_call_is_accepted_just_when_the_operators_take_it(op: str) -> None:
    under_test = subject(op, "cpu", examples=100)
    space = replace(under_test.space, leads=LEADS, layouts=tuple(Layout))
    served = {True: 0, False: 0}

    def check(call: Call) -> None:
        given = call.on(torch.device("cpu"))
        arguments = (given.obj, *given.arguments.values())
        accepted = under_test.accepts(*arguments) is True
        served[accepted] += 1
        if accepted:
            under_test.fn(*arguments)
        elif op != "layer_norm":  # PyTorch's own on a CPU takes more than on an NPU
            with pytest.raises(RuntimeError, match="the documentation excludes such a call"):
                under_test.fn(*arguments)

    under_test.for_all(space, check)
    assert all(served.values())


@pytest.mark.parametrize("op", OPS)
def test_no_call_in_float64_is_accepted(op: str) -> None:
    under_test = subject(op, "cpu")

    def check(call: Call) -> None:
        given = call.on(torch.device("cpu"))
        reason = under_test.accepts(given.obj, *given.arguments.values())
        assert isinstance(reason, str), reason

    under_test.for_all(replace(under_test.space, dtypes=(torch.float64,)), check)
