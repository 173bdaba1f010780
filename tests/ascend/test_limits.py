"""The reasons; tests/ascend/under_torch_npu holds that they are neither too many nor too few."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.ops import CONTRACTS, NORMS
from sglang_fl_ascend import limits

X = torch.zeros(3, 64, dtype=torch.bfloat16)
OF_ONE = ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul", *NORMS)


def ask(op: str, *arguments: Any, obj: Any = None) -> Any:
    return getattr(limits, op)(obj, *arguments)


def ask_rotary(width: int = 64, dtype: Any = torch.bfloat16, cache: Any = None, tokens: int = 3) -> Any:
    table = torch.zeros(8, width, dtype=cache or dtype)
    heads = torch.zeros(tokens, 2, width, dtype=dtype)
    return ask(
        "rotary_embedding",
        *(heads, heads, *table.chunk(2, -1), torch.zeros(tokens, dtype=torch.int64)),
        obj=SimpleNamespace(cos_sin_cache=table),
    )


def test_it_asks_with_the_op_s_own_signature() -> None:
    import inspect

    for op, contract in CONTRACTS.items():
        taken = inspect.signature(getattr(limits, op), eval_str=False).parameters
        assert [(p.name, p.default) for p in taken.values()] == [
            (p.name, p.default) for p in contract.signature.parameters.values()
        ]


@pytest.mark.parametrize("op", OF_ONE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtypes_that_models_serve_in_are_taken(op: str, dtype: torch.dtype) -> None:
    assert ask(op, X.to(dtype)) is True
    assert ask(op, X[:, :32].to(dtype)) is True


@pytest.mark.parametrize("op", OF_ONE)
@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (X.double(), "takes float16, bfloat16 and float32, not torch.float64"),
        (X[:0], "does not take empty tensors in every release"),
        (X[(None,) * 7], "to 8 dimensions, not 9"),
    ],
    ids=["float64", "empty", "9-D"],
)
def test_what_no_operator_takes_is_refused(op: str, x: torch.Tensor, reason: str) -> None:
    assert reason in ask(op, x)


def test_a_norm_of_a_single_row_without_dimensions_before_it_is_refused_where_two_are_documented() -> None:
    assert ask("rms_norm", X[0]) == "npu_rms_norm takes 2 to 8 dimensions, not 1"
    assert ask("gemma_rms_norm", X[0]) is True


def test_a_residual_of_another_dtype_is_refused() -> None:
    assert ask("rms_norm", X, X) is True
    assert "one dtype, not torch.bfloat16 and torch.float32" in ask("rms_norm", X, X.float())


@pytest.mark.parametrize(
    ("width", "dtype", "taken"),
    [
        (64, torch.bfloat16, True),
        (96, torch.float16, True),
        (80, torch.bfloat16, False),
        (16, torch.float32, True),
        (80, torch.float32, True),
        (24, torch.float32, False),
    ],
)
def test_heads_turn_by_multiples_of_32_elements_and_of_16_in_float32(
    width: int, dtype: torch.dtype, taken: bool
) -> None:
    answer = ask_rotary(width, dtype)
    assert (answer is True) == taken
    assert taken or "a multiple of 32" in answer


def test_a_cache_in_float32_turns_halves_in_float32() -> None:
    assert ask_rotary(cache=torch.float32) is True
    assert ask_rotary(width=80, cache=torch.float32) is True


@pytest.mark.parametrize(
    ("dtype", "cache"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float16), (torch.bfloat16, torch.float64)],
)
def test_a_cache_of_another_dtype_is_refused(dtype: torch.dtype, cache: torch.dtype) -> None:
    assert f"not {cache} for {dtype}" in ask_rotary(dtype=dtype, cache=cache)


def test_no_tokens_are_refused() -> None:
    assert "empty" in ask_rotary(tokens=0)
    assert "float64" in ask_rotary(dtype=torch.float64)
