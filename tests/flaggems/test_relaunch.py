"""When our ops launch again what they have launched before, and when they ask Triton anew."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl_flaggems.kernels import activation, layer_norm, rms_norm, rotary
from sglang_fl_flaggems.kernels.launch import MANY, Relaunch, Tensors

Op = Callable[..., Any]
Call = Callable[..., dict[str, Any]]


class Kernel:
    """Notes how it is launched: by Triton, and again."""

    def __init__(self) -> None:
        self.first: list[tuple[Any, ...]] = []
        self.again: list[tuple[Any, ...]] = []

    def __call__(
        self, grid: tuple[int, int], tensors: Tensors, scalars: Any, constants: Any, warps: int
    ) -> Relaunch | None:
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        self.first.append((*grid, *addresses, *scalars))
        if any(address is not None and address % 16 for address in addresses):
            return None
        return lambda *arguments: self.again.append(arguments)

    @property
    def launches(self) -> tuple[int, int]:
        return len(self.first), len(self.again)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The kernel of every op."""
    kernel = Kernel()
    homes = {activation: "_act_and_mul", rms_norm: "_rms_norm", layer_norm: "_layer_norm", rotary: "_rotate"}
    for module, name in homes.items():
        monkeypatch.setattr(module, name, kernel)
        monkeypatch.setattr(module, "_known", {}, raising=False)
    return kernel


def rows(tokens: int, n: int, dtype: torch.dtype = torch.float32, start: int = 0, gap: int = 8) -> torch.Tensor:
    """``n`` columns of wider rows, from the column ``start`` on."""
    return torch.zeros(tokens, n + gap, dtype=dtype)[:, start : start + n]


def layer(n: int = 64, dtype: torch.dtype = torch.float32, step: int = 1) -> SimpleNamespace:
    vectors = torch.ones(2, n * step, dtype=dtype)[:, ::step].unbind()
    names = dict(zip(("weight", "bias"), vectors, strict=True))
    return SimpleNamespace(**names, variance_epsilon=1e-6, elementwise_affine=True, use_bias=True)


def act(**differing: Any) -> dict[str, Any]:
    return {"obj": None, "x": rows(3, 128), **differing}


def norm(**differing: Any) -> dict[str, Any]:
    return {"obj": layer(), "x": rows(3, 64), **differing}


def norm_of_a_sum(**differing: Any) -> dict[str, Any]:
    return norm(**{"residual": rows(3, 64), **differing})


def rotation(**differing: Any) -> dict[str, Any]:
    cos, sin = torch.zeros(50, 64).chunk(2, dim=-1)
    heads = {"query": torch.zeros(3, 4, 64), "key": torch.zeros(3, 2, 64)}
    return {
        "obj": None,
        **heads,
        "cos": cos,
        "sin": sin,
        "position_ids": torch.zeros(3, dtype=torch.int64),
        **differing,
    }


OPS: dict[str, tuple[Callable[[], Op], Call]] = {
    "activation": (lambda: activation._activation("silu"), act),
    "norm": (lambda: rms_norm._norm(0.0), norm),
    "norm of a sum": (lambda: rms_norm._norm(0.0), norm_of_a_sum),
    "layer norm": (lambda: layer_norm.layer_norm, norm),
    "rotation": (lambda: rotary.rotary_embedding, rotation),
}


@pytest.mark.parametrize("name", OPS)
def test_a_call_like_another_is_launched_with_its_own_addresses_and_tokens(kernel: Kernel, name: str) -> None:
    make, call = OPS[name]
    op, first, second = make(), call(), call()
    op(**first)
    results = op(**second)
    assert kernel.launches == (1, 1)
    given = {value.data_ptr() for value in second.values() if isinstance(value, torch.Tensor)}
    results = [result for result in (results if isinstance(results, tuple) else (results,)) if result is not None]
    assert given | {result.data_ptr() for result in results} <= set(kernel.again[0])
    assert len(kernel.again[0]) == len(kernel.first[0])
    assert kernel.again[0][:2] == kernel.first[0][:2]


@pytest.mark.parametrize("name", ["activation", "norm", "layer norm"])
def test_the_number_of_tokens_asks_for_another_grid_and_only_many_for_another_kernel(kernel: Kernel, name: str) -> None:
    make, call = OPS[name]
    op, width = make(), 128 if name == "activation" else 64
    for tokens in (3, 5, 0, MANY - 1):
        op(**call(x=rows(tokens, width)))
    assert kernel.launches == (1, 3)
    assert [(arguments[0], arguments[-1 if name == "activation" else -2]) for arguments in kernel.again] == [
        (5, 5),
        (0, 0),
        (MANY - 1, MANY - 1),
    ]
    op(**call(x=rows(MANY, width)))
    op(**call(x=rows(MANY + 1, width)))
    assert kernel.launches == (2, 4)


F16, INT32 = torch.float16, torch.int32
DIFFERENCES = [
    ("activation", {"x": rows(3, 256)}),
    ("activation", {"x": rows(3, 128, F16)}),
    ("activation", {"x": rows(3, 128, gap=16)}),
    ("norm", {"x": rows(3, 64, F16)}),
    ("norm", {"x": rows(3, 64, gap=16)}),
    ("norm", {"obj": layer(dtype=F16)}),
    ("norm", {"residual": rows(3, 64)}),
    ("norm of a sum", {"residual": rows(3, 64, gap=16)}),
    ("norm of a sum", {"x": rows(3, 64, gap=16)}),
    ("norm of a sum", {"obj": layer(dtype=F16)}),
    ("layer norm", {"x": rows(3, 64, F16)}),
    ("layer norm", {"obj": layer(dtype=F16)}),
    ("layer norm", {"obj": SimpleNamespace(**{**vars(layer()), "use_bias": False})}),
    ("rotation", {"query": torch.zeros(3, 5, 64)}),
    ("rotation", {"query": torch.zeros(3, 4, 72)[..., :64]}),
    ("rotation", {"query": torch.zeros(3, 4, 64, dtype=F16)}),
    ("rotation", {"key": torch.zeros(3, 4, 64)}),
    ("rotation", {"key": torch.zeros(3, 2, 64, dtype=F16)}),
    ("rotation", {"key": None}),
    ("rotation", {"cos": torch.zeros(50, 64, dtype=F16)[:, :32]}),
    ("rotation", {"sin": torch.zeros(50, 32)}),
    ("rotation", {"position_ids": torch.zeros(3, dtype=INT32)}),
    ("rotation", {"position_ids": torch.zeros(6, dtype=torch.int64)[::2]}),
    ("rotation", {"rotary_interleaved": True}),
]


@pytest.mark.parametrize(("name", "differing"), DIFFERENCES)
def test_triton_is_asked_anew_for_a_call_that_differs(kernel: Kernel, name: str, differing: dict[str, Any]) -> None:
    make, call = OPS[name]
    op = make()
    op(**call())
    op(**call(**differing))
    assert kernel.launches == (2, 0)
    op(**call(**differing))
    op(**call())
    assert kernel.launches == (2, 2)


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("activation", {"x": rows(3, 128, start=1)}),
        ("activation", {"x": torch.zeros(128, 3).t()}),
        ("norm", {"x": rows(3, 64, start=1)}),
        ("norm", {"obj": layer(step=2)}),
        ("norm", {"x": torch.zeros(64, 3).t()}),
        ("norm of a sum", {"residual": rows(3, 64, start=1)}),
        ("norm of a sum", {"residual": rows(3, 64, F16)}),
        ("norm of a sum", {"x": torch.zeros(1, 64).expand(3, 64)}),
        ("layer norm", {"x": rows(3, 64, start=1)}),
        ("layer norm", {"obj": layer(step=2)}),
        ("rotation", {"query": torch.zeros(3, 4, 65)[..., 1:]}),
        ("rotation", {"key": torch.zeros(3, 2, 65)[..., 1:]}),
        ("rotation", {"query": torch.zeros(3, 1, 64).expand(3, 4, 64)}),
        ("rotation", {"inplace": False}),
    ],
)
def test_triton_is_asked_anew_every_time_for_what_no_kernel_takes_as_it_is(
    kernel: Kernel, name: str, differing: dict[str, Any]
) -> None:
    make, call = OPS[name]
    op = make()
    op(**call())
    for _ in range(2):
        op(**call(**differing))
    assert kernel.launches == (3, 0)


@pytest.mark.parametrize("name", ["x", "residual"])
def test_a_lone_row_is_no_precedent_for_rows_that_share_memory(kernel: Kernel, name: str) -> None:
    op, shared = rms_norm._norm(0.0), torch.zeros(1, 64).expand(3, 64)
    lone = {"x": rows(1, 64), "residual": rows(1, 64), name: shared[:1]}
    op(**norm(**lone))
    op(**norm_of_a_sum(**{name: shared}))
    assert kernel.launches == (2, 0)


@pytest.mark.parametrize(("few", "strides"), [(1, (0, 64, 1)), (1, (64, 64, 1)), (3, (64, 192, 1))])
def test_few_tokens_are_no_precedent_for_more_that_share_memory(
    kernel: Kernel, few: int, strides: tuple[int, ...]
) -> None:
    def rotates_in_place(tokens: int) -> bool:
        query, at = torch.zeros(1024).as_strided((tokens, 4, 64), strides), torch.zeros(tokens, dtype=torch.int64)
        return rotary.rotary_embedding(**rotation(query=query, key=None, position_ids=at))[0] is query

    assert [rotates_in_place(tokens) for tokens in (few, few, few + 1, few)] == [True, True, False, True]
    assert kernel.launches == (2, 2)


def test_more_tokens_than_before_are_a_precedent_for_as_many(kernel: Kernel) -> None:
    for tokens in (1, 3, 2, 3):
        query, at = torch.zeros(tokens, 4, 64), torch.zeros(tokens, dtype=torch.int64)
        rotary.rotary_embedding(**rotation(query=query, key=None, position_ids=at))
    assert kernel.launches == (2, 2)


def test_x_as_its_own_residual_is_never_launched_as_two_tensors(kernel: Kernel) -> None:
    op, x = rms_norm._norm(0.0), rows(3, 64)
    op(**norm_of_a_sum())
    op(**norm_of_a_sum(x=x, residual=x))
    assert kernel.launches == (2, 0)
    assert len(set(kernel.first[1][2:5])) == 2  # y is x, and the residual is a copy


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("norm", {"obj": layer(32)}),
        ("norm of a sum", {"residual": rows(2, 64)}),
        ("layer norm", {"obj": layer(32)}),
        ("rotation", {"cos": torch.zeros(50, 16)}),
        ("rotation", {"sin": torch.zeros(50, 16)}),
        ("rotation", {"key": torch.zeros(2, 2, 64)}),
        ("rotation", {"position_ids": torch.zeros(2, dtype=torch.int64)}),
    ],
)
def test_a_call_that_does_not_fit_is_refused_after_one_that_does(
    kernel: Kernel, name: str, differing: dict[str, Any]
) -> None:
    make, call = OPS[name]
    op = make()
    op(**call())
    with pytest.raises(ValueError, match=r"\d"):
        op(**call(**differing))
    assert kernel.launches == (1, 0)
