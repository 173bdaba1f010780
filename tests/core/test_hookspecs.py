from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pluggy
import pytest

from sglang_fl import hookspecs
from sglang_fl.hookspecs import PROJECT, hookimpl

from .samples import run_python

SPECS = {name: fn for name, fn in vars(hookspecs).items() if name.startswith(f"{PROJECT}_")}


def test_the_hooks_take_what_the_design_says() -> None:
    assert {name: tuple(inspect.signature(fn).parameters) for name, fn in SPECS.items()} == {
        "sglang_fl_register_platforms": (),
        "sglang_fl_register_ops": ("platform",),
        "sglang_fl_register_communicators": ("platform", "settings"),
        "sglang_fl_register_settings": (),
        "sglang_fl_default_settings": ("platform",),
        "sglang_fl_activate": ("platform", "settings"),
        "sglang_fl_aten_ops": ("platform", "settings"),
        "sglang_fl_diagnose": ("settings",),
    }


@pytest.mark.parametrize("spec", SPECS.values())
def test_pluggy_knows_every_hook_and_its_docstring_says_when_it_is_called(spec: Callable[..., Any]) -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    assert getattr(manager.hook, spec.__name__).spec is not None
    assert "alled" in (spec.__doc__ or "") or "Last" in (spec.__doc__ or "")


def test_a_hook_may_leave_its_arguments_out() -> None:
    class Backend:
        @hookimpl
        def sglang_fl_register_ops(self) -> list[str]:
            return ["it was called"]

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Backend())
    assert manager.hook.sglang_fl_register_ops(platform=None) == [["it was called"]]


def test_declaring_hooks_and_records_imports_nothing_heavy() -> None:
    program = (
        "import sys, sglang_fl; sglang_fl.hookimpl, sglang_fl.OpImpl;"
        "print({'torch', 'pydantic', 'yaml', 'sglang', 'rich', 'typer'} & set(sys.modules))"
    )
    assert run_python(program).stdout == "set()\n"
