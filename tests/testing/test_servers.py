"""How a server of the suite is started: tests/testing/reference runs real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sglang_fl.testing import Requirements
from sglang_fl.testing.serving import servers
from sglang_fl.testing.serving.server import Server
from sglang_fl.testing.serving.servers import Kind, Servers
from sglang_fl.testing.subject import Subject

REFERENCE = Requirements(plugin="reference", platform="cpu", implementation="reference.torch")


def test_a_server_is_told_what_the_machine_needs_before_what_the_test_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Sequence[str]] = []

    @contextmanager
    def recorded(arguments: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Server]:
        started.append(arguments)
        yield Server("http://127.0.0.1:1", log)

    monkeypatch.setattr(servers, "serving", recorded)
    some = Servers(Subject.find(REFERENCE), tmp_path, ["--attention-backend", "triton", "--tp", "1"])
    some.get(Kind(attention="torch_native"))
    some.stop()

    (arguments,) = started
    assert [*arguments[:4]] == ["--attention-backend", "triton", "--tp", "1"]
    assert arguments[arguments.index("--attention-backend", 1) + 1] == "torch_native"
