"""How we call FlagGems: on a GPU with FlagGems itself, elsewhere with what has its signatures."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl import OpImpl
from sglang_fl.testing.calls.placed import STRIDED
from sglang_fl.testing.checks import check_sharing, check_values, check_what_stays
from sglang_fl.testing.under_test import OpUnderTest
from sglang_fl_flaggems import offers
from tests.flaggems import gems_on_cpu

IMPLS = {impl.op: impl for impl in offers.flag_gems("cuda")}
OPS = pytest.mark.parametrize("op", IMPLS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])


@pytest.fixture
def gems(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Our module that calls FlagGems, with the stand-in for it."""
    monkeypatch.setitem(sys.modules, "flag_gems", gems_on_cpu.flag_gems())
    monkeypatch.delitem(sys.modules, "sglang_fl_flaggems.gems", raising=False)
    yield importlib.import_module("sglang_fl_flaggems.gems")
    monkeypatch.delitem(sys.modules, "sglang_fl_flaggems.gems")


def on_cpu(op: str) -> OpUnderTest:
    return OpUnderTest(IMPLS[op])


@OPS
@DTYPES
def test_flaggems_is_called_as_it_wants(gems: ModuleType, op: str, dtype: torch.dtype) -> None:
    subject = on_cpu(op)
    subject.for_all(replace(subject.space, dtypes=(dtype,)), check_values(subject))


@OPS
def test_strided_and_empty_inputs_give_right_results(gems: ModuleType, op: str) -> None:
    subject = on_cpu(op)
    subject.for_all(replace(subject.space, layouts=STRIDED), check_values(subject))
    subject.for_all(replace(subject.space, leads=st.sampled_from([(0,), (0, 3)])), check_values(subject))


@OPS
def test_only_what_is_declared_is_overwritten(gems: ModuleType, op: str) -> None:
    subject = on_cpu(op)
    subject.for_all(replace(subject.space, layouts=STRIDED), check_what_stays(subject))
    subject.for_all(subject.space, check_sharing(subject))


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_residual_of_another_dtype_is_added_unrounded(
    gems: ModuleType, dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    obj = SimpleNamespace(weight=torch.ones(8), variance_epsilon=1e-6)
    x, residual = -torch.ones(1, 8, dtype=dtypes[0]), torch.full((1, 8), 1 + 2.0**-7, dtype=dtypes[1])
    y, total = gems.rms_norm(obj, x, residual)
    assert y.dtype == total.dtype == x.dtype
    assert torch.equal(total, torch.full_like(x, 2.0**-7))


def layer(n: int) -> SimpleNamespace:
    return SimpleNamespace(
        weight=torch.ones(n), bias=torch.ones(n), variance_epsilon=1e-6, elementwise_affine=True, use_bias=True
    )


@pytest.fixture
def untouched(gems: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Our module, with a FlagGems that nobody may call."""
    for name in ("rms_norm", "fused_add_rms_norm", "layer_norm"):
        monkeypatch.delattr(gems.flag_gems, name)
    return gems


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("given", [("rms_norm", 1), ("rms_norm", 2), ("layer_norm", 1)])
def test_a_vector_of_another_width_never_reaches_flaggems(
    untouched: ModuleType, given: tuple[str, int], tokens: int
) -> None:
    name, tensors = given
    with pytest.raises(ValueError, match="4 weights for 8 columns"):
        getattr(untouched, name)(layer(4), *torch.ones(tensors, tokens, 8))


@pytest.mark.parametrize("vector", ["weight", "bias"])
def test_each_vector_of_a_layer_norm_is_looked_at_if_it_counts(gems: ModuleType, vector: str) -> None:
    obj, x = layer(8), torch.ones(2, 8)
    setattr(obj, vector, torch.ones(4))
    with pytest.raises(ValueError, match="4 weights for 8 columns"):
        gems.layer_norm(obj, x)
    setattr(obj, "elementwise_affine" if vector == "weight" else "use_bias", False)
    assert gems.layer_norm(obj, x).shape == x.shape


@pytest.mark.parametrize("shape", [(1, 8), (3, 8), (2, 2, 4), (8,), (0, 8)])
def test_a_residual_of_another_shape_never_reaches_flaggems(untouched: ModuleType, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the residual has shape .*, not that of x, \(2, 8\)"):
        untouched.rms_norm(layer(8), torch.ones(2, 8), torch.ones(shape))


@pytest.mark.parametrize("given", [("rms_norm", 1), ("rms_norm", 2), ("layer_norm", 1)])
def test_integers_never_reach_flaggems(untouched: ModuleType, given: tuple[str, int]) -> None:
    name, tensors = given
    with pytest.raises(TypeError, match=r"torch\.int32"):
        getattr(untouched, name)(layer(8), *torch.ones(tensors, 2, 8, dtype=torch.int32))


def test_a_function_that_flaggems_does_not_export_would_be_found() -> None:
    with pytest.raises(AssertionError, match="gemma_rms_norm comes from nowhere"):
        gems_on_cpu.signature_of("gemma_rms_norm")


def test_the_signatures_are_the_releases() -> None:
    assert list(gems_on_cpu.signature_of("fused_add_rms_norm").parameters) == [
        "x",
        "residual",
        "normalized_shape",
        "weight",
        "eps",
    ]


def refused(op: str, *args: Any) -> str | None:
    accepts = IMPLS[op].load_accepts()
    assert accepts is not None
    answer = accepts(*args)
    return None if answer is True else answer


def test_rows_that_flaggems_cannot_find_are_refused() -> None:
    rows = torch.empty(1, 4096, device="meta").expand(2**19, 4096)
    assert "32-bit offsets" in (refused("rms_norm", None, rows) or "")
    assert refused("rms_norm", None, rows[1:]) is None
    assert refused("rms_norm", None, rows, rows) is None


@pytest.mark.parametrize(("width", "capturing"), [(4096, True), (4097, True), (4097, False)])
def test_a_norm_that_is_tuned_is_refused_while_a_graph_is_captured(
    monkeypatch: pytest.MonkeyPatch, width: int, capturing: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "is_current_stream_capturing", lambda: capturing, raising=False)
    reason = refused("rms_norm", None, torch.empty(2, width))
    assert (reason is not None) == (width > 4096 and capturing)


def test_tables_with_gaps_in_their_rows_are_refused() -> None:
    query, table, positions = torch.empty(2, 1, 8), torch.empty(5, 8), torch.zeros(2, dtype=torch.int64)
    dense, gaps = table[:, :4], table[:, ::2]
    assert refused("rotary_embedding", None, query, None, dense, dense, positions) is None
    assert "dense" in (refused("rotary_embedding", None, query, None, dense, gaps, positions) or "")


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("flag_gems") is None, reason="flag-gems is not installed")
@OPS
@DTYPES
def test_flaggems_own_results_are_near_to_exact(op: str, dtype: torch.dtype) -> None:
    subject = OpUnderTest(IMPLS[op], torch.device("cuda"), examples=4)
    widths, leads = st.sampled_from([64, 577, 4096]), st.sampled_from([(1,), (7,), (2, 3)])
    space = replace(subject.space, dtypes=(dtype,), widths=widths, leads=leads)
    subject.for_all(space, check_values(subject))
    subject.for_all(replace(space, layouts=STRIDED), check_values(subject))


def test_every_op_but_gemmas_norm_is_offered() -> None:
    impls: list[OpImpl] = list(IMPLS.values())
    assert {impl.impl_id for impl in impls} == {"flagos.flaggems"}
    assert len(impls) == 6
    assert "gemma_rms_norm" not in IMPLS
