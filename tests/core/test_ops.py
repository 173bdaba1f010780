from __future__ import annotations

from typing import Any

import pytest
import torch

from sglang_fl.errors import DispatchError
from sglang_fl.ops import CONTRACTS, contract_of

X = torch.zeros(3, 8)
ROTARY = {"cos": torch.zeros(9, 4), "sin": torch.zeros(9, 4), "position_ids": torch.zeros(3, dtype=torch.int64)}
QUERY = torch.zeros(3, 2, 8)
ACTS = ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul")
RMS = ("rms_norm", "gemma_rms_norm")


def check(op: str, result: Any, **arguments: Any) -> str | None:
    contract = CONTRACTS[op]
    return contract.check(contract.bind((None,), arguments), result)


@pytest.mark.parametrize(
    ("ops", "parameters"),
    [
        (ACTS, "obj, x"),
        (RMS, "obj, x, residual=None"),
        (("layer_norm",), "obj, x"),
        (
            ("rotary_embedding",),
            "obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True",
        ),
    ],
)
def test_an_op_is_called_as_vendors_write_it(ops: tuple[str, ...], parameters: str) -> None:
    for op in ops:
        bare = [p.replace(annotation=p.empty) for p in CONTRACTS[op].signature.parameters.values()]
        assert ", ".join(map(str, bare)) == parameters


def test_there_are_seven_ops_each_under_its_own_name() -> None:
    assert len(CONTRACTS) == 7
    assert all(contract_of(name) is contract and contract.name == name for name, contract in CONTRACTS.items())


@pytest.mark.parametrize(("name", "hint"), [("rmsnorm", "'rms_norm'"), ("rotary_emb", "'rotary_embedding'")])
def test_an_unknown_op_is_an_error_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(DispatchError, match=rf"the op '{name}'; found no such op. To do: did you mean {hint}"):
        contract_of(name)


@pytest.mark.parametrize("op", CONTRACTS)
def test_the_first_activation_is_the_ops_first_tensor(op: str) -> None:
    contract = CONTRACTS[op]
    parameters = list(contract.signature.parameters)
    assert contract.activations[0] == parameters[1]
    assert set(contract.activations) <= set(parameters)


def test_binding_fills_in_the_defaults() -> None:
    assert CONTRACTS["rms_norm"].bind((None, X), {})["residual"] is None
    bound = CONTRACTS["rotary_embedding"].bind((None, QUERY, None), ROTARY)
    assert (bound["rotary_interleaved"], bound["inplace"]) == (False, True)


@pytest.mark.parametrize(("args", "kwargs"), [((None,), {}), ((None, X, X, X), {}), ((None, X), {"scale": 2})])
def test_an_illegal_call_is_the_callers_error(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        CONTRACTS["rms_norm"].bind(args, kwargs)


@pytest.mark.parametrize("op", RMS)
def test_a_norm_may_overwrite_its_inputs_only_with_a_residual(op: str) -> None:
    contract = CONTRACTS[op]
    assert contract.overwrites(contract.bind((None, X), {})) == ()
    assert contract.overwrites(contract.bind((None, X, X), {})) == ("x", "residual")


@pytest.mark.parametrize("inplace", [True, False])
def test_rotary_may_overwrite_its_inputs_only_in_place(inplace: bool) -> None:
    contract = CONTRACTS["rotary_embedding"]
    arguments = contract.bind((None, QUERY, QUERY), {**ROTARY, "inplace": inplace})
    assert contract.overwrites(arguments) == (("query", "key") if inplace else ())


@pytest.mark.parametrize("op", (*ACTS, "layer_norm"))
def test_the_others_overwrite_nothing(op: str) -> None:
    assert CONTRACTS[op].overwrites(CONTRACTS[op].bind((None, X), {})) == ()


GOOD = {
    **{op: ({"x": X}, torch.zeros(3, 4)) for op in ACTS},
    **{op: ({"x": X, "residual": X}, (X, X)) for op in RMS},
    "layer_norm": ({"x": X}, X),
    "rotary_embedding": ({"query": QUERY, "key": QUERY, **ROTARY}, (QUERY, QUERY)),
}


@pytest.mark.parametrize("op", CONTRACTS)
def test_a_result_as_promised_is_legal(op: str) -> None:
    arguments, result = GOOD[op]
    assert check(op, result, **arguments) is None


BAD = [None, 1.0, "text", [], (), (X,), (X, X, X), (None, None), X.numpy(), X[:2], X[:, :3], X.half(), X.to("meta")]


@pytest.mark.parametrize("op", CONTRACTS)
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{type(bad).__name__} {getattr(bad, 'shape', '')}")
def test_every_other_result_is_illegal_and_the_reason_is_told(op: str, bad: Any) -> None:
    arguments, _ = GOOD[op]
    reason = check(op, bad, **arguments)
    assert reason is not None
    assert "not" in reason


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("bad", "reason"), [(X[:2], "shape"), (X.half(), "dtype"), (X.to("meta"), "is on meta")])
def test_both_halves_of_a_pair_are_checked(place: int, bad: torch.Tensor, reason: str) -> None:
    pair = [X, X]
    pair[place] = bad
    told = check("rms_norm", tuple(pair), x=X, residual=X)
    assert told is not None
    assert told.startswith(("the norm", "the sum")[place])
    assert reason in told


@pytest.mark.parametrize("op", RMS)
def test_a_norm_answers_with_a_pair_if_and_only_if_there_is_a_residual(op: str) -> None:
    assert check(op, X, x=X) is None
    assert check(op, (X, X), x=X) is not None
    assert check(op, X, x=X, residual=X) is not None


def test_where_there_is_no_key_none_is_answered() -> None:
    arguments = {"query": QUERY, "key": None, **ROTARY}
    assert check("rotary_embedding", (QUERY, None), **arguments) is None
    assert check("rotary_embedding", (QUERY, QUERY), **arguments) == "the key is Tensor, not None"
