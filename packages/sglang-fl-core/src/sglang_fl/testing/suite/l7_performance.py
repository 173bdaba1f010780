"""L7: speed, op by op against the reference, and served against SGLang untouched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl.testing.calls.call import Call
from sglang_fl.testing.calls.space import Space
from sglang_fl.testing.serving.prompts import prompts
from sglang_fl.testing.serving.servers import Kind, Served, Servers
from sglang_fl.testing.subject import Subject
from sglang_fl.testing.timing import seconds_per_call
from sglang_fl.testing.under_test import OpUnderTest

SLOWEST = 1.25
"""An op may take this many times what the reference takes: the rest is noise."""

KEPT = 0.8
"""The part of SGLang's own throughput that a server keeps at least."""

_WIDTH = 4096
_BATCH, _TOKENS = 8, 128


@pytest.mark.L7
@pytest.mark.parametrize("rows", [1, 32, 2048])
def test_it_is_not_slower_than_the_reference(subject: Subject, op: OpUnderTest, rows: int) -> None:
    """In decoding one request and many, and in a prefill."""
    subject.require_open("performance")
    subject.require_real_device("a timing")
    reference = subject.references[op.op].load()
    if reference is op.fn:
        pytest.skip("it is the reference")
    dtype = op.dtypes[-1]  # a half, where one is open
    space = replace(op.space, dtypes=(dtype,), leads=st.just((rows,)), widths=st.just(_width(op)), magnitudes=(1.0,))

    call = _drawn(op, replace(space, residual=True, key=True, inplace=True))
    if op.run(call) is None:
        pytest.skip(f"accepts refuses it: {op.tally.refusals.most_common(1)[0][0]}")
    own, other = seconds_per_call(op.device, [_bound(op, fn, call) for fn in (op.fn, reference)])
    op.notes.append(f"{op.op}, {rows} rows, {dtype}: {own * 1e6:.1f} µs, {own / other:.2f} of the reference's time")
    if own > SLOWEST * other:
        found = f"{own * 1e6:.1f} µs a call; the reference takes {other * 1e6:.1f} µs"
        do = "speed it up, let accepts refuse such calls, or declare a priority below the reference's 50"
        raise op.failure(call, found, do)


@pytest.mark.L7
def test_a_server_keeps_the_speed_of_sglang_untouched(subject: Subject, servers: Servers) -> None:
    """Decoding a batch, with the subject's ops, and without sglang-fl."""
    subject.require_open("performance")
    subject.require_real_device("a timing")
    if not subject.platform.in_tree:
        pytest.skip(f"SGLang has no platform of its own for {subject.platform.name!r} to compare with")
    graphs = subject.requirements.why_closed("graphs") is None
    own, native = (servers.get(Kind(own_ops=enabled, graphs=graphs, enabled=enabled)) for enabled in (True, False))
    rates = [_tokens_per_second(served) for served in (own, native, own, native)]
    kept = max(rates[0::2]) / max(rates[1::2])
    assert kept >= KEPT, (
        f"{subject.name} decodes {max(rates[0::2]):.0f} tokens/s, SGLang untouched {max(rates[1::2]):.0f}: "
        f"{kept:.0%} kept, at least {KEPT:.0%} wanted; find the op with `sglang-fl trace`"
    )


def _drawn(op: OpUnderTest, space: Space) -> Call:
    drawn: list[Call] = []
    op.at_most(1).examine(space, drawn.append)
    return drawn[0]


def _width(op: OpUnderTest) -> int:
    return 128 if op.op == "rotary_embedding" else _WIDTH


def _bound(op: OpUnderTest, fn: Callable[..., object], call: Call) -> Callable[[], object]:
    given = call.on(op.device)
    arguments = (given.obj, *given.arguments.values())

    def once() -> object:
        with torch.inference_mode():
            return fn(*arguments)

    return once


def _tokens_per_second(served: Served) -> float:
    asked = prompts(*[16] * _BATCH)
    served.server.generate(asked, 8)
    began = time.perf_counter()
    served.server.generate(asked, _TOKENS)
    return _BATCH * _TOKENS / (time.perf_counter() - began)
