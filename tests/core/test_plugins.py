from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sglang_fl.errors import SglangFlError
from sglang_fl.hookspecs import hookimpl
from sglang_fl.plugins import CORE, Plugin, Plugins
from sglang_fl.records import OpImpl

from ..third_parties import third_party
from .samples import CPU, impl

Install = Callable[..., Path]

HEAD = """
from sglang_fl import BackendImplKind, OpImpl, hookimpl

def record(impl_id):
    return OpImpl(op="silu_and_mul", impl_id=impl_id, kind=BackendImplKind.VENDOR, vendor="acme", fn="m:f")
"""
GOOD = HEAD + "@hookimpl\ndef sglang_fl_register_ops(platform):\n    return [record(__name__)]\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution in this process until the test is over."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield lambda name, source, **options: third_party(tmp_path, name, source, **options)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def offered(plugins: Plugins) -> list[tuple[str, str]]:
    """(plugin, implementation) of what the third parties offer."""
    offers = plugins.collect("sglang_fl_register_ops", OpImpl, platform=CPU)
    return [(o.plugin.name, o.record.impl_id) for o in offers if o.plugin.distribution != CORE]


def problem(plugins: Plugins) -> str:
    (only,) = plugins.problems
    return str(only)


def test_the_reference_is_a_plugin_that_is_always_there() -> None:
    (first, *_) = Plugins.load()
    assert (first.name, first.distribution, first.problem) == ("reference", CORE, None)


def test_an_installed_distribution_is_found_and_named(install: Install) -> None:
    install("good-chip", GOOD, version="2.5")
    plugins = Plugins.load()
    assert offered(plugins) == [("good_chip", "good_chip")]
    (plugin,) = (plugin for plugin in plugins if plugin.distribution == "good-chip")
    assert (plugin.version, plugin.hooks, plugin.problem) == ("2.5", ("sglang_fl_register_ops",), None)
    assert str(plugin) == "plugin 'good_chip' of good-chip 2.5"


BROKEN_MODULES = {
    "raise RuntimeError('no driver')": ["the module 'bad_chip'", "RuntimeError: no driver"],
    "raise SystemExit('no licence')": ["the module 'bad_chip'", "SystemExit: no licence"],
    "import there_is_no_such_sdk": ["the module 'bad_chip'", "ModuleNotFoundError", "there_is_no_such_sdk"],
    "def (": ["the module 'bad_chip'", "SyntaxError"],
    "": ["its hooks", "none; use one of: sglang_fl_activate, sglang_fl_aten_ops, sglang_fl_default_settings"],
    HEAD + "@hookimpl\ndef sglang_fl_register_op(platform):\n    return []": [
        "a hook 'sglang_fl_register_op'",
        "no such hook; did you mean 'sglang_fl_register_ops'?",
    ],
    "def sglang_fl_register_op(platform):\n    return []": [
        "a hook 'sglang_fl_register_op'",
        "no such hook; did you mean 'sglang_fl_register_ops'?",
    ],
    "def sglang_fl_register_ops(platform):\n    return []": [
        "the function 'sglang_fl_register_ops'",
        "it is not marked with @hookimpl",
    ],
    "import sys\nsglang_fl_aaa = sys\ndef sglang_fl_register_ops(platform):\n    return []": [
        "the function 'sglang_fl_register_ops'",
        "it is not marked with @hookimpl",
    ],
    GOOD + "def sglang_fl_register_platforms():\n    return []": [
        "the function 'sglang_fl_register_platforms'",
        "it is not marked with @hookimpl",
    ],
    HEAD + "@hookimpl\ndef sglang_fl_register_ops(plattform):\n    return []": [
        "its hooks",
        "sglang_fl_register_ops(plattform)",
        "can not be found in the hookspec",
    ],
    HEAD + "@hookimpl(wrapper=True)\ndef sglang_fl_register_ops(platform):\n    return (yield)": [
        "the hook 'sglang_fl_register_ops' with options",
        "each plugin is asked on its own",
    ],
    HEAD + "@hookimpl(specname='sglang_fl_activate')\ndef sglang_fl_register_ops(platform):\n    return []": [
        "the hook 'sglang_fl_register_ops' with options",
        "each plugin is asked on its own",
    ],
}


@pytest.mark.parametrize("source", BROKEN_MODULES)
def test_a_broken_module_is_reported_and_the_rest_serves(
    install: Install, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    install("bad-chip", source, version="0.3")
    install("a-good-chip", GOOD)
    install("z-good-chip", GOOD)
    plugins = Plugins.load()
    assert offered(plugins) == [("a_good_chip", "a_good_chip"), ("z_good_chip", "z_good_chip")]
    for part in ("plugin 'bad_chip' of bad-chip 0.3", "SGLANG_FL_DISABLED_PLUGINS=bad_chip", *BROKEN_MODULES[source]):
        assert part in problem(plugins)
    assert [record.getMessage() for record in caplog.records] == [f"left out: {problem(plugins)}"]


BROKEN_ANSWERS = {
    "return 'text'": "'text', which is no list of records",
    "return b'text'": "b'text', which is no list of records",
    "return 5": "5, which is no list of records",
    "return {'x': record('a')}": "which is no list of records",
    "return record('a')": "silu_and_mul/a, which is no list of records",
    "return [record('a'), 'text']": "'text' among them",
    "return [record('a'), None]": "None among them",
    "return [OpImpl]": "among them",
    "yield record('a')\n    raise OSError('bus')": "OSError: bus",
    "yield record('a')\n    raise SystemExit('licence')": "SystemExit: licence",
    "yield record('a')\n    yield record(7)": "ValueError: impl_id is 7",
    "raise OSError('bus')": "OSError: bus",
    "raise SystemExit('licence')": "SystemExit: licence",
    "return [OpImpl(op='x')]": "TypeError: ",
}


@pytest.mark.parametrize("body", BROKEN_ANSWERS)
def test_a_broken_answer_leaves_out_the_plugin_whole_and_the_rest_serves(install: Install, body: str) -> None:
    install("bad-chip", HEAD + f"@hookimpl\ndef sglang_fl_register_ops(platform):\n    {body}\n")
    install("a-good-chip", GOOD)
    install("z-good-chip", GOOD)
    plugins = Plugins.load()
    assert offered(plugins) == [("a_good_chip", "a_good_chip"), ("z_good_chip", "z_good_chip")]
    for part in ("plugin 'bad_chip' of bad-chip 1.0", "sglang_fl_register_ops", BROKEN_ANSWERS[body]):
        assert part in problem(plugins)


@pytest.mark.parametrize(
    "body", ["return None", "return []", "return ()", "return iter(())", "pass", "yield from []", "return set()"]
)
def test_to_offer_nothing_is_no_error(install: Install, body: str) -> None:
    install("empty-chip", HEAD + f"@hookimpl\ndef sglang_fl_register_ops(platform):\n    {body}\n")
    plugins = Plugins.load()
    assert offered(plugins) == []
    assert plugins.problems == []


@pytest.mark.parametrize(
    "body", ["return [record('a')]", "return {record('a')}", "yield record('a')", "return iter([record('a')])"]
)
def test_records_come_in_any_iterable(install: Install, body: str) -> None:
    install("chip", HEAD + f"@hookimpl\ndef sglang_fl_register_ops(platform):\n    {body}\n")
    assert offered(Plugins.load()) == [("chip", "a")]


def test_answers_are_their_plugins_own_whoever_else_answers_nothing(install: Install) -> None:
    for name in ("a-chip", "c-chip", "e-chip"):
        install(name, GOOD)
    for name in ("b-chip", "d-chip", "f-chip"):
        install(name, HEAD + "@hookimpl\ndef sglang_fl_register_ops(platform):\n    return None\n")
    assert offered(Plugins.load()) == [("a_chip", "a_chip"), ("c_chip", "c_chip"), ("e_chip", "e_chip")]


def test_the_order_is_that_of_the_names_however_they_were_installed(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c-chip", "a-chip"):
        install(name, GOOD)
    monkeypatch.syspath_prepend(third_party(tmp_path / "first", "b-chip", GOOD))
    assert [plugin.name for plugin in Plugins.load()][1:] == ["a_chip", "b_chip", "c_chip"]


@pytest.mark.parametrize("source", [GOOD, "raise RuntimeError", "raise SystemExit"])
def test_a_disabled_plugin_is_never_imported(install: Install, source: str) -> None:
    install("off-chip", source)
    install("on-chip", GOOD)
    plugins = Plugins.load({"off_chip"})
    assert [plugin.name for plugin in plugins] == ["reference", "on_chip"]
    assert "off_chip" not in sys.modules
    assert "on_chip" in sys.modules
    assert plugins.problems == []


def test_of_two_distributions_with_one_name_the_second_is_left_out_by_name(install: Install) -> None:
    install("a-chip", GOOD, entry_points={"chip": "a_chip"})
    install("b-chip", GOOD, entry_points={"chip": "b_chip"}, version="2.0")
    plugins = Plugins.load()
    assert offered(plugins) == [("chip", "a_chip")]
    for part in ("plugin 'chip' of b-chip 2.0", "the name 'chip'", "taken by plugin 'chip' of a-chip 1.0"):
        assert part in problem(plugins)
    assert [(plugin.name, plugin.distribution) for plugin in plugins][1:] == [("chip", "a-chip"), ("chip", "b-chip")]
    assert plugins.problems[0].do == "uninstall b-chip or a-chip"  # to disable the name would leave out both


def test_the_references_name_is_taken(install: Install) -> None:
    install("a-chip", GOOD, entry_points={"reference": "a_chip"})
    plugins = Plugins.load()
    assert "taken by plugin 'reference' of sglang-fl-core" in problem(plugins)
    assert next(iter(plugins)).problem is None


def test_a_name_that_a_broken_plugin_had_is_free(install: Install) -> None:
    install("a-chip", "raise RuntimeError", entry_points={"chip": "a_chip"})
    install("b-chip", GOOD, entry_points={"chip": "b_chip"})
    assert offered(Plugins.load()) == [("chip", "b_chip")]


def test_one_distribution_may_bring_several_plugins(install: Install) -> None:
    site = install("chip", GOOD, entry_points={"one": "chip", "two": "chip_two"})
    (site / "chip_two.py").write_text("raise RuntimeError('half of it')")
    plugins = Plugins.load()
    assert offered(plugins) == [("one", "chip")]
    assert "plugin 'two' of chip 1.0" in problem(plugins)


def test_what_is_left_of_a_distribution_without_metadata_still_loads(install: Install) -> None:
    site = install("chip", GOOD)
    install("bad-chip", "raise RuntimeError")
    for metadata in site.glob("*/METADATA"):
        metadata.unlink()
    plugins = Plugins.load()
    assert offered(plugins) == [("chip", "chip")]
    assert "plugin 'bad_chip' of an unknown distribution: " in problem(plugins)


def test_a_plugin_that_raised_once_is_not_called_again() -> None:
    calls: list[str] = []

    class Backend:
        @hookimpl
        def sglang_fl_register_platforms(self) -> list[Any]:
            calls.append("platforms")
            raise OSError

        @hookimpl
        def sglang_fl_register_ops(self) -> list[Any]:
            calls.append("ops")
            return []

    plugins = Plugins()
    plugins.add(Plugin("chip", "chip", "1"), Backend())
    for hook in ("sglang_fl_register_platforms", "sglang_fl_register_ops"):
        plugins.call(hook, **({"platform": CPU} if hook.endswith("ops") else {}))
    assert calls == ["platforms"]


def test_a_problem_keeps_what_was_raised_as_its_cause() -> None:
    error = OSError("bus")

    class Backend:
        @hookimpl
        def sglang_fl_register_ops(self) -> list[Any]:
            raise error

    plugins = Plugins()
    plugins.add(Plugin("chip", "chip", "1"), Backend())
    plugins.call("sglang_fl_register_ops", platform=CPU)
    assert plugins.problems[0].__cause__ is error


def test_an_error_of_ours_says_itself_what_was_asked_and_what_to_do() -> None:
    class Strict:
        @hookimpl
        def sglang_fl_aten_ops(self) -> list[OpImpl]:
            raise SglangFlError("acme", asked="speed", found="none", do="wait")

    plugins = Plugins()
    plugins.add(Plugin("strict", "strict-chip", "1"), Strict())
    plugins.call("sglang_fl_aten_ops", platform=CPU, settings=None)
    assert problem(plugins) == (
        "plugin 'strict' of strict-chip 1: asked for its hook sglang_fl_aten_ops, and there for speed; found none. "
        "To do: wait"
    )


def test_an_interrupt_is_not_the_plugins_fault() -> None:
    class Backend:
        @hookimpl
        def sglang_fl_register_ops(self) -> list[Any]:
            raise KeyboardInterrupt

    plugins = Plugins()
    plugins.add(Plugin("chip", "chip", "1"), Backend())
    with pytest.raises(KeyboardInterrupt):
        plugins.call("sglang_fl_register_ops", platform=CPU)
    assert plugins.problems == []


class Backend:
    """A plugin that works."""

    @hookimpl
    def sglang_fl_register_ops(self) -> list[OpImpl]:
        return [impl()]


class Unhashable(Backend):
    __hash__ = None  # type: ignore[assignment]


class EqualToAll(Backend):
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return True


class Closed:
    """A module whose every unknown name raises."""

    @hookimpl
    def sglang_fl_activate(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Lazy(Backend):
    """A module that imports what it lists when it is asked for it."""

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), "sglang_fl_kernels"]

    def __getattr__(self, name: str) -> Any:
        raise OSError("no driver")


@pytest.mark.parametrize("odd", [Unhashable, EqualToAll, Closed])
def test_an_odd_plugin_disturbs_no_other(odd: type) -> None:
    plugins = Plugins()
    plugins.add(Plugin("before", "one", "1"), Backend())
    plugins.add(Plugin("odd", "two", "1"), odd())
    plugins.add(Plugin("after", "three", "1"), Backend())
    assert plugins.problems == []
    names = [name for name, _ in offered(plugins)]
    assert names == ["before", *([] if odd is Closed else ["odd"]), "after"]
    plugins.call("sglang_fl_activate", platform=CPU, settings=None)
    assert plugins.problems == []


def test_a_plugin_that_cannot_be_looked_into_is_left_out() -> None:
    plugins = Plugins()
    plugins.add(Plugin("odd", "two", "1"), Lazy())
    plugins.add(Plugin("good", "three", "1"), Backend())
    assert [name for name, _ in offered(plugins)] == ["good"]
    assert "plugin 'odd' of two 1: asked for its hooks; found OSError: no driver" in problem(plugins)


@pytest.mark.parametrize("garbage", [None, 5, "text", ModuleType("empty"), object()])
def test_what_has_no_hooks_is_left_out(garbage: object) -> None:
    plugins = Plugins()
    plugins.add(Plugin("odd", "two", "1"), garbage)
    assert "its hooks; found none" in problem(plugins)


def test_a_plugin_may_leave_a_hooks_arguments_out_and_gets_those_that_it_names() -> None:
    seen: list[Any] = []

    class Backend:
        @hookimpl
        def sglang_fl_activate(self, settings: Any) -> None:
            seen.append(settings)

    plugins = Plugins()
    plugins.add(Plugin("chip", "chip", "1"), Backend())
    plugins.call("sglang_fl_activate", platform=CPU, settings="settings")
    assert seen == ["settings"]
