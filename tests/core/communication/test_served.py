"""What is decided and prepared before a communicator is called.

What comes of the calls is in ``tests/core/reference/test_communicator.py``, of failing ones in ``test_faults.py``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sglang_fl.communication import served as module
from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.served import ServedGroup
from sglang_fl.trace_report import read_report
from sglang_fl.tracing import Tracer

FLOATS, BYTES = frozenset({torch.float32, torch.float16}), frozenset({torch.uint8})


class Alone:
    """A departure that nobody hears of."""

    def tell(self, reason: str) -> str:
        return reason

    def listen(self, heard: Any) -> None:
        self.heard = heard

    def close(self) -> None: ...


class Recording:
    """Collectives that do nothing but remember what they are given."""

    dtypes: ClassVar = {"all_reduce": FLOATS, "all_gather": FLOATS | BYTES, "all_gatherv": BYTES, "broadcast": FLOATS}

    def __init__(self, graph_safe: bool = True) -> None:
        self.graph_safe = graph_safe
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, arguments))

    @contextmanager
    def batch(self) -> Iterator[None]:
        yield
        gc.collect()
        self.calls.append(("batch", tuple(self.read())))

    def read(self) -> Iterator[list[float]]:
        """What the inputs hold by now."""
        for _, (_, tensor) in self.calls:
            yield tensor.tolist()


def serve(collectives: Any, tracer: Tracer | None = None, departure: Any = None) -> ServedGroup:
    group: Any = Group("tp:0", 0, (0, 1), torch.device("cpu"), 1, None, None, None)  # type: ignore[arg-type]
    return ServedGroup(group, "acme", collectives, departure or Alone(), tracer=tracer)


REFUSED = [
    ("all_to_all", torch.float32, "cpu", "acme does not offer all_to_all"),
    ("all_reduce", torch.int32, "cpu", "acme has no all_reduce of int32"),
    ("broadcast", torch.int32, "cpu", "acme has no broadcast of int32"),
    ("all_reduce", torch.float32, "meta", "the tensor is on meta, the group on cpu"),
]
TAKEN = [("all_reduce", torch.float16), ("all_gather", torch.int32), ("all_gatherv", torch.float32)]


@pytest.mark.parametrize(("collective", "dtype", "device", "why"), REFUSED)
def test_what_the_communicator_does_not_declare_is_refused(
    collective: str, dtype: torch.dtype, device: str, why: str
) -> None:
    served = serve(Recording())
    assert [served.refusal(collective, torch.empty(n, dtype=dtype, device=device)) for n in (0, 3)] == [why, why]


@pytest.mark.parametrize(("collective", "dtype"), TAKEN)
def test_what_it_declares_is_taken_and_what_only_moves_is_taken_as_bytes(collective: str, dtype: torch.dtype) -> None:
    assert serve(Recording()).refusal(collective, torch.empty(2, dtype=dtype)) is None


def test_sizes_are_told_in_the_elements_that_are_sent() -> None:
    made = Recording()
    serve(made).all_gatherv(torch.empty(3, 2), torch.empty(1, 2), [2, 4])
    ((name, (output, part, sizes)),) = made.calls
    assert (name, output.dtype, len(output), len(part), sizes) == ("all_gatherv", torch.uint8, 24, 8, [8, 16])


def test_a_contiguous_tensor_is_handed_over_as_it_is_and_another_as_a_copy() -> None:
    made = Recording()
    rows = torch.arange(6.0).view(2, 3)
    serve(made).all_reduce(rows)
    serve(made).all_reduce(rows.t())
    (_, (first, _)), (_, (second, _)) = made.calls
    assert first.data_ptr() == rows.data_ptr() != second.data_ptr()
    assert (first.tolist(), second.tolist()) == ([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5])


def test_nothing_is_called_for_nothing() -> None:
    made = Recording()
    serve(made).all_reduce(torch.empty(0, 3))
    serve(made).broadcast(torch.empty(0), 0)
    assert made.calls == []


def test_what_a_batch_reads_lives_until_its_end() -> None:
    made = Recording()
    served = serve(made)
    with served.batch():
        for number in range(20):
            served.all_gather(torch.empty(4), torch.full((2, 2), float(number)).t()[:1])
            torch.full((2,), -1.0)  # which would take the place of what has been freed
    assert made.calls[-1][1] == tuple([float(number)] * 2 for number in range(20))


@pytest.mark.parametrize("graph_safe", [True, False])
def test_in_a_graph_serves_only_what_can_be_captured(graph_safe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(Recording(graph_safe))
    assert served.refusal("all_reduce", torch.empty(1)) is None
    monkeypatch.setattr(module, "is_capturing", lambda device: True)
    wanted = None if graph_safe else "acme cannot be captured in a graph"
    assert served.refusal("all_reduce", torch.empty(1)) == wanted


def test_without_a_trace_the_decision_is_asked_directly() -> None:
    served = serve(Recording())
    assert served.refusal == served._refusal


def test_a_trace_counts_what_is_served_and_what_is_not_and_why(tmp_path: Path) -> None:
    served = serve(Recording(), Tracer.start({"calls"}, tmp_path))
    for tensor in (torch.ones(4), torch.ones(2), torch.ones(3, dtype=torch.int32)):
        served.refusal("all_reduce", tensor)

    rows = read_report([tmp_path]).collectives

    assert [(row.collective, row.communicator, row.reason, row.calls, row.bytes, row.dtypes) for row in rows] == [
        ("all_reduce", "acme", None, 2, 24, {"float32": 2}),
        ("all_reduce", None, "acme has no all_reduce of int32", 1, 12, {"int32": 1}),
    ]


@pytest.mark.parametrize("kinds", [set(), {"hooks", "select"}])
def test_a_trace_of_other_things_leaves_the_decision_as_it_is(kinds: set[str], tmp_path: Path) -> None:
    served = serve(Recording(), Tracer.start(kinds, tmp_path))
    assert served.refusal == served._refusal


class Failing(Recording):
    def all_reduce(self, output: Any, tensor: Any) -> None:
        raise self.error

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def test_after_a_failure_nothing_is_called_but_abort_once() -> None:
    made = Failing(OSError("cable"))
    served = serve(made)
    for _ in range(2):
        with pytest.raises(
            CommunicatorError, match=r"rank 0: asked for all_reduce by communicator 'acme'.*OSError: cable"
        ):
            served.all_reduce(torch.ones(1))
    for collective in (lambda: served.broadcast(torch.ones(1), 0), lambda: served.refusal("broadcast", torch.ones(1))):
        with pytest.raises(CommunicatorError, match=r"asked for broadcast"):
            collective()
    served.destroy()
    assert made.calls == [("abort", ())]


def test_an_interrupt_passes_as_it_is_and_ends_the_group_all_the_same() -> None:
    served = serve(Failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        served.all_reduce(torch.ones(1))
    with pytest.raises(CommunicatorError, match="KeyboardInterrupt"):
        served.broadcast(torch.ones(1), 0)


def test_hearing_that_another_rank_has_left_ends_the_group() -> None:
    departure, made = Alone(), Recording()
    served = serve(made, departure=departure)
    departure.heard()("rank 1 left it")
    with pytest.raises(CommunicatorError, match="rank 1 left it"):
        served.all_reduce(torch.ones(1))
    assert made.calls == [("abort", ())]


def test_it_is_destroyed_once_also_when_nobody_does() -> None:
    made = Recording()
    served = serve(made)
    served.destroy()
    served.destroy()
    assert made.calls == [("destroy", ())]
    forgotten = Recording()
    serve(forgotten)
    gc.collect()
    assert forgotten.calls == [("destroy", ())]


def test_what_is_kept_elsewhere_is_refused_although_the_communicator_takes_it() -> None:
    group: Any = Group("tp:0", 0, (0, 1), torch.device("cpu"), 1, None, None, None)  # type: ignore[arg-type]
    departure: Any = Alone()

    def kept(collective: str, tensor: torch.Tensor) -> str | None:
        return "it is small" if tensor.numel() < 8 else None

    served = ServedGroup(group, "acme", Recording(), departure, elsewhere=kept)  # type: ignore[arg-type]
    assert served.refusal("all_reduce", torch.zeros(7)) == "it is small"
    assert served.refusal("all_reduce", torch.zeros(8)) is None
    assert served.refusal("all_to_all", torch.zeros(8)) == "acme does not offer all_to_all"
