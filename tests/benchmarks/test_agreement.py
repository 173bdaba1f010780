from __future__ import annotations

from math import isnan, nan

import pytest
import torch

from benchmarks.agreement import _compare_near, _distance
from benchmarks.figures import Figures

RIGHT = torch.ones(2, 3, dtype=torch.float64)
WRONG = RIGHT * nan


def test_the_distance_of_logits_is_not_a_number_whichever_prompt_s_are_none() -> None:
    assert isnan(_distance([RIGHT, RIGHT], [RIGHT, WRONG]))


def test_a_lead_that_is_not_a_number_explains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _compare_near([[1, 1]], [[1, 2]], [WRONG], [WRONG], Figures())
    assert "figure agreement.flagos.unexplained 1 prompts bound ==0 missed" in capsys.readouterr().out
