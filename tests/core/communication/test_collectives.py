from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.communication.collectives import COLLECTIVES, declaration, misdeclared
from sglang_fl.reference.communicator import TorchCollectives

FLOATS, BYTES = frozenset({torch.float32}), frozenset({torch.uint8})


def made(**fields: Any) -> SimpleNamespace:
    """What a create may return, with ``fields`` in place of what is right."""
    methods = dict.fromkeys(("all_reduce", "send", "recv", "batch", "destroy", "abort"), print)
    return SimpleNamespace(**{"dtypes": {"all_reduce": FLOATS}, "graph_safe": True, **methods, **fields})


@pytest.mark.parametrize(
    "right", [made(), made(dtypes={}), made(dtypes={"send": BYTES, "recv": BYTES}), TorchCollectives]
)
def test_what_declares_what_it_has_is_accepted(right: Any) -> None:
    assert misdeclared(right) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (None, "has no dtypes"),
        (made(dtypes=["all_reduce"]), "has no dtypes"),
        (made(dtypes={"all_reduce": torch.float32}), "has no dtypes"),
        (made(graph_safe=None), "has no graph_safe"),
        (made(dtypes={"allreduce": FLOATS}), "'allreduce', which is no collective; did you mean 'all_reduce'?"),
        (made(dtypes={"broadcast": FLOATS}), "has no method broadcast"),
        (made(abort=None), "has no method abort"),
        (made(dtypes={"send": BYTES}), "other dtypes in send than in recv"),
        (made(dtypes={"isend": BYTES, "recv": FLOATS}, isend=print), "other dtypes in isend than in recv"),
    ],
)
def test_what_is_wrong_is_told(wrong: Any, why: str) -> None:
    assert why in str(misdeclared(wrong))


def test_declarations_are_equal_where_what_they_declare_is() -> None:
    one = made(dtypes={"all_reduce": FLOATS | BYTES, "recv": BYTES})
    assert declaration(one) == declaration(made(dtypes={"recv": BYTES, "all_reduce": BYTES | FLOATS}))
    others = [made(dtypes={"recv": BYTES}), made(dtypes={**one.dtypes, "recv": FLOATS})]
    others.append(made(dtypes=one.dtypes, graph_safe=False))
    assert len({declaration(each) for each in (one, *others)}) == 4


def test_the_reference_offers_every_collective() -> None:
    assert TorchCollectives.dtypes.keys() == COLLECTIVES
