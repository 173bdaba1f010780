from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sglang_fl.cli import app
from sglang_fl.tracing import Tracer
from tests.third_parties import third_party

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")

ACME = """
    from sglang_fl import AtenOp, BackendImplKind, Diagnosis, OpImpl, Platform, hookimpl

    def impl(op, is_available):
        return OpImpl(op=op, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme",
                      fn="acme_chip:never_called", is_available=is_available)

    @hookimpl
    def sglang_fl_register_platforms():
        return [Platform(name="acme", device_type="acme", is_available=lambda: True, priority=1000,
                         total_memory=lambda index: 2**30)]

    @hookimpl
    def sglang_fl_register_ops(platform):
        return [impl("rms_norm", lambda: True), impl("silu_and_mul", lambda: "needs driver 8, found 7.1")]

    @hookimpl
    def sglang_fl_aten_ops(platform, settings):
        return [
            AtenOp(name="add.Tensor", by="acme_chip.add", replaced=True, reason="acme_aten is on"),
            AtenOp(name="mm", by="acme_chip.mm", replaced=False, reason="wrong below 16 columns"),
        ]

    @hookimpl
    def sglang_fl_diagnose():
        return [Diagnosis(subject="driver", ok=False, found="7.1", wanted="8 or later",
                          remedy="apt install acme-driver")]
"""
"""The backend of the page's examples."""


def sessions() -> list[tuple[str, str]]:
    """Every command on the page with the output that is shown for it."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [(block.split("\n", 1)[0].removeprefix("$ "), block.split("\n", 1)[1]) for block in blocks]


def trace_a_quarantine(directory: Path) -> None:
    tracer = Tracer.start({"select"}, directory)
    assert tracer is not None
    told = {"op": "rms_norm", "implementation": "vendor.acme", "dtype": "torch.bfloat16", "device": "acme:0"}
    tracer.event("quarantine", **told, reason="RuntimeError: illegal instruction")


def words(output: str) -> str:
    """The output without blank lines, and with one blank between words: tables are as wide as their widest cell."""
    lines = (" ".join(line.split()) for line in output.splitlines())
    return "\n".join(re.sub("─+", "─", line) for line in lines if line)


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=[command for command, _ in sessions()])
def test_command_prints_what_the_page_shows(
    command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_chip", raising=False)
    monkeypatch.syspath_prepend(third_party(tmp_path, "acme-chip", ACME, version="1.2"))
    unset = {name: None for name in os.environ if name.startswith("SGLANG")}
    variables = dict(word.split("=", 1) for word in shlex.split(command) if re.match(r"[A-Z_]+=", word))
    arguments = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if "traces" in arguments:
        trace_a_quarantine(Path("traces"))

    result = CliRunner().invoke(app, arguments[1:], env={**unset, **variables})

    assert arguments[0] == "sglang-fl"
    pattern = re.escape(words(shown)).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, words(result.output), flags=re.DOTALL), words(result.output)


def test_page_shows_every_command() -> None:
    shown = {word for command, _ in sessions() for word in shlex.split(command)}
    callbacks = [info.callback for info in app.registered_commands if info.callback is not None]
    commands = {callback.__name__.replace("_", "-") for callback in callbacks}

    assert commands - {"trace"} <= shown
    assert "](tracing.md)" in PAGE
