from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.aten import Examined, Seen, _calls, _examined, _extreme, examine_all
from benchmarks.beside import Beside, Finding


@dataclass
class Sample:
    """As PyTorch's ``SampleInput``, which needs a package that nothing else here does."""

    input: torch.Tensor
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def noncontiguous(self) -> Sample:
        return Sample(self.input.repeat_interleave(2, dim=-1)[..., ::2], self.args, self.kwargs)


def asinh() -> SimpleNamespace:
    """As PyTorch's ``OpInfo`` of it."""
    return SimpleNamespace(
        op=torch.asinh,
        inplace_variant=torch.Tensor.asinh_,
        supports_out=True,
        name="asinh",
        variant_test_name="",
        supported_dtypes=lambda device: {torch.float32},
        sample_inputs=lambda device, dtype: [Sample(torch.randn(2, 3, dtype=dtype))],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("overload", ["asinh", "asinh_", "asinh.out"])
def test_samples_are_strided_extreme_in_place_and_written_into_out(overload: str, dtype: torch.dtype) -> None:
    given: list[Any] = []
    beside = Beside({overload: lambda *args, **kwargs: given.append((args[0], kwargs.get("out")))}, "cpu")
    for call in _calls(asinh(), dtype):
        with torch.no_grad(), beside:
            call()
    assert {x.is_contiguous() for x, _ in given} == {True, False}
    assert any(bool(x.isnan().any() and x.isinf().any()) for x, _ in given) == dtype.is_floating_point
    outs = {out.is_contiguous() for _, out in given if out is not None}
    assert outs == ({True, False} if overload == "asinh.out" else set())


def test_what_has_no_room_for_extremes_or_takes_none_is_left() -> None:
    assert _extreme(Sample(torch.randn(2))) is None
    assert _extreme(Sample(torch.arange(9))) is None
    assert _extreme(Sample(torch.randn(3, 3).to_sparse())) is None


def test_an_op_whose_samples_cannot_be_made_is_told_and_not_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(device: str, dtype: torch.dtype) -> None:
        raise torch.OutOfMemoryError

    ops = {"made": asinh(), "not made": asinh()}
    ops["not made"].sample_inputs = out_of_memory
    monkeypatch.setattr("benchmarks.aten.DEVICE_TYPE", "cpu")
    monkeypatch.setattr("benchmarks.aten._ops", lambda: ops)
    monkeypatch.setattr("benchmarks.aten._functions", dict)
    seen = Seen(None)
    seen.add(_examined([*ops], time.monotonic() + 60.0))
    assert seen.left == ["not made"]
    assert capsys.readouterr().err == "asinh : no samples of torch.float32: OutOfMemoryError()\n"


def examine(names: list[str], deadline: float) -> Examined:
    """In a process of its own: one op ends it before it can answer, and one after which nothing else can be done."""
    if "fails" in names:
        msg = "out of memory"
        raise RuntimeError(msg)
    done = names[:1] if "breaks" in names else names
    return Examined(Counter(done), [Finding(name, "raised", "x") for name in done], names[len(done) :], [])


@pytest.mark.parametrize(("seconds", "reached"), [(60.0, {"breaks", "later"}), (0.0, {"breaks"})])
def test_what_a_process_leaves_is_for_another_or_told_and_what_was_seen_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, reached: set[str]
) -> None:
    monkeypatch.setattr("benchmarks.aten.PROCESSES", 2)
    names, seen = ["breaks", "fails", "later"], Seen(tmp_path / "rows.csv")
    examine_all(names, examine, seen, time.monotonic() + seconds)
    assert seen.calls.keys() == reached
    assert sorted(seen.left) == sorted({*names} - reached)
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == reached
