"""What SGLang would log and swallow ends the process with one message."""

from __future__ import annotations

import pytest

from sglang_fl.adapter.entry import stopping
from sglang_fl.errors import PlatformError
from tests.core.samples import run_python


def _raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        PlatformError("acme", asked="a chip", found="none", do="buy one"),
        ImportError("cannot import name 'HookSource'"),
    ],
)
def test_every_exception_stops_with_its_message(error: Exception) -> None:
    with pytest.raises(SystemExit, match="sglang-fl: ") as stop:
        stopping(_raises)(error)
    assert str(error).split(";", maxsplit=1)[0] in str(stop.value)
    assert stop.value.__cause__ is error


@pytest.mark.server
def test_another_plugins_hook_on_the_same_module_is_applied_once() -> None:
    program = """
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

home = "sglang.srt.model_executor.model_runner.ModelRunner"
HookRegistry.register(f"{home}.forward", lambda original, *args: original(*args), HookType.AROUND)
load_plugins()
from sglang.srt.model_executor.model_runner import ModelRunner

def wrappers(function):
    return 1 + wrappers(function.__wrapped__) if hasattr(function, "__wrapped__") else 0

print(wrappers(ModelRunner.forward), wrappers(ModelRunner.load_model))
"""
    done = run_python(program)
    assert done.stdout.splitlines()[-1] == "1 1", done.stderr[-2000:]
