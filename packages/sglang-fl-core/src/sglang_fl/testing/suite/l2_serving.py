"""L2: a server comes up on the platform and is right, with the reference ops and SGLang's plainest attention."""

from __future__ import annotations

import pytest

from sglang_fl.testing.serving.prompts import prompts
from sglang_fl.testing.serving.servers import Served
from sglang_fl.testing.subject import Subject
from sglang_fl.trace_records import HookCall

_TOKENS = 12


@pytest.mark.L2
def test_a_server_generates(plain: Served) -> None:
    """As many tokens as were asked for, and the same ones when it is asked again."""
    asked = prompts(6)
    (first,), (second,) = (plain.server.generate(asked, _TOKENS) for _ in range(2))
    assert len(first.tokens) == _TOKENS
    assert second.tokens == first.tokens, "the same prompt is answered in two ways, greedily"


@pytest.mark.L2
def test_its_log_probabilities_are_the_models(plain: Served) -> None:
    """Of every token of a prompt, and of every token that is generated."""
    asked = prompts(17)
    plain.require_right(asked, plain.server.generate(asked, _TOKENS, score_prompts=True))


@pytest.mark.L2
def test_the_reference_ops_serve_its_layers(plain: Served) -> None:
    """And no others: what is right here is SGLang and the platform."""
    assert set(plain.serving.values()) == {"reference.torch"}, plain.serving


@pytest.mark.L2
def test_every_process_has_the_plugin(subject: Subject, plain: Served) -> None:
    """Each process that SGLang starts has loaded it and asked it for its records."""
    assert len(plain.records) > 1, f"only {len(plain.records)} process traced; log: {plain.server.log}"
    for file, records in plain.records.items():
        asked = {plugin for record in records if isinstance(record, HookCall) for plugin in record.plugins}
        assert subject.plugin.name in asked, f"{file.stem} asked {sorted(asked)}; log: {plain.server.log}"
