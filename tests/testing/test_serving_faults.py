"""L2 and L4 catch a server that answers with other probabilities than the model's."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from sglang_fl.testing.serving.model import ExactModel, make_model
from sglang_fl.testing.serving.prompts import prompts
from sglang_fl.testing.serving.server import Answer, Server
from sglang_fl.testing.serving.servers import Served

PROMPTS = prompts(3, 20)
TOKENS = [7, 11, 13]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("served")
    return Served(
        "acme", Server("http://127.0.0.1:1", folder / "log"), make_model(folder / "model"), "float32", folder / "trace"
    )


def answers(told: Callable[[list[int]], list[float]]) -> list[Answer]:
    """Answers with the probabilities that ``told`` gives for a prompt and ``TOKENS``."""
    scored = [told(prompt + TOKENS) for prompt in PROMPTS]
    return [Answer(TOKENS, one[: -len(TOKENS)], one[-len(TOKENS) :], 0) for one in scored]


def test_the_models_own_probabilities_pass(served: Served) -> None:
    served.require_right(PROMPTS, answers(served.exact.log_probabilities))


def test_the_same_in_half_precision_pass_as_half_precision(served: Served) -> None:
    half = ExactModel(served.model, torch.bfloat16)
    as_bfloat16 = Served(served.who, served.server, served.model, "bfloat16", served.trace)
    as_bfloat16.require_right(PROMPTS, answers(half.log_probabilities))


@pytest.mark.parametrize(
    "fault",
    [
        lambda exact, tokens: exact(tokens[1:] + tokens[:1]),
        lambda exact, tokens: [one - 0.05 for one in exact(tokens)],
        lambda exact, tokens: [*exact(tokens)[:-1], math.nan],
        lambda exact, tokens: [exact([tokens[at], tokens[at + 1]])[0] for at in range(len(tokens) - 1)],
    ],
    ids=["of another prompt", "a little off", "not a number", "blind for all but the last token"],
)
def test_others_are_caught(served: Served, fault: Callable[..., list[float]]) -> None:
    with pytest.raises(AssertionError, match=r"exact is .* in float32 it may be off by 0.01"):
        served.require_right(PROMPTS, answers(lambda tokens: fault(served.exact.log_probabilities, tokens)))
