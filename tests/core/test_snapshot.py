from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from .samples import LAYER, candidate, dispatcher, reference, rows, silu_and_mul, vandal

ACT = "silu_and_mul"


def wider(*shape: int) -> torch.Tensor:
    return rows(*shape[:-1], shape[-1] + 3)[..., 1 : 1 + shape[-1]]


def transposed(*shape: int) -> torch.Tensor:
    return rows(*shape[::-1]).permute(*reversed(range(len(shape))))


def repeated(*shape: int) -> torch.Tensor:
    return rows(*shape[1:]).expand(shape)


def every_second(*shape: int) -> torch.Tensor:
    return rows(*shape[:-1], 2 * shape[-1])[..., ::2]


LAYOUTS = [rows, wider, transposed, repeated, every_second]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 8), (8,), (2, 3, 8), (0, 8)])
def test_a_kernel_that_overwrites_its_input_and_raises_changes_no_answer(
    layout: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> None:
    if layout is repeated and len(shape) == 1:
        shape = (5, 8)
    x = layout(*shape)
    given = x.clone()
    made = dispatcher(candidate(fn=vandal()), reference())
    assert torch.equal(made.call(ACT, None, x), silu_and_mul(None, given))
    assert torch.equal(x, given)
    condemned = [link.key.impl_id for link in made.quarantined]
    assert condemned == (["vendor.acme"] if x.numel() else [])  # an empty call says nothing about a kernel


@pytest.mark.parametrize("op", ["rms_norm", "gemma_rms_norm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_residual_is_given_to_the_next_as_it_was(op: str, layout: Callable[..., torch.Tensor], by_name: bool) -> None:
    x, residual = layout(3, 4), layout(3, 4) * 0.5 if layout is not repeated else layout(3, 4)
    wanted = reference(op).impl.load()(LAYER, x.clone(), residual.clone())
    made = dispatcher(candidate(op=op, fn=vandal()), reference(op))
    got = made.call(op, LAYER, x, residual=residual) if by_name else made.call(op, LAYER, x, residual)
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


def test_an_input_that_is_its_own_residual_is_restored() -> None:
    x = rows(3, 4)
    wanted = reference("rms_norm").impl.load()(LAYER, x.clone(), x.clone())
    made = dispatcher(candidate(op="rms_norm", fn=vandal()), reference("rms_norm"))
    got = made.call("rms_norm", LAYER, x, x)
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("with_key", [True, False])
def test_query_and_key_that_are_views_of_one_row_are_restored(with_key: bool) -> None:
    qkv, cos, sin = rows(5, 3, 8), rows(9, 4), rows(9, 4)
    query, key = qkv[:, :2], qkv[:, 2:] if with_key else None
    positions = torch.arange(5)
    fn = reference("rotary_embedding").impl.load()
    wanted = fn(None, query.clone(), None if key is None else key.clone(), cos, sin, positions)

    def kernel(obj: Any, query: torch.Tensor, key: torch.Tensor | None, *rest: Any) -> Any:
        return vandal()(obj, query, key)

    made = dispatcher(candidate(op="rotary_embedding", fn=kernel), reference("rotary_embedding"))
    got = made.call("rotary_embedding", None, query, key, cos, sin, positions)
    for one, other in zip(got, wanted, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_what_lies_between_the_rows_of_a_view_is_restored_too() -> None:
    whole = rows(3, 11)
    before = whole.clone()
    dispatcher(candidate(fn=vandal()), reference()).call(ACT, None, whole[:, 1:9])
    assert torch.equal(whole, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_in", [torch.no_grad, torch.inference_mode])
def test_the_input_is_restored_in_every_mode_of_autograd(mode: Callable[[], Any], made_in: Callable[[], Any]) -> None:
    def scribble(obj: Any, x: torch.Tensor) -> Any:
        np.asarray(x.detach())[:] = 7
        raise RuntimeError

    with made_in():
        x = rows(3, 8)
    given = x.clone()
    if not x.is_inference():
        x.requires_grad_()
    with mode():
        got = dispatcher(candidate(fn=scribble), reference()).call(ACT, None, x)
    assert torch.equal(got, silu_and_mul(None, given))
    assert torch.equal(x, given)
