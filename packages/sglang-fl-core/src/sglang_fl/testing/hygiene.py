"""Calls a backend's hooks in a process of its own, and tells as JSON what each step did to the process.

``python -m sglang_fl.testing.hygiene PLUGIN PLATFORM [SDK ...]``
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import torch  # noqa: F401 - before anything is watched: what torch imports is no fault of the hooks

from sglang_fl.candidates import collect_candidates
from sglang_fl.hookspecs import PROJECT
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.records import Communicator, OpImpl, Platform, always
from sglang_fl.settings import Settings, load_settings

ELSEWHERE = Platform(name="elsewhere", device_type="meta", is_available=always, in_tree=True)
"""A platform that no backend knows."""


def main(plugin: str, platform: str, *sdk: str) -> None:
    """Writes the steps, each with what it answered and what it changed."""
    print(json.dumps(list(_steps(plugin, platform, sdk))))


def _steps(name: str, platform_name: str, sdk: Sequence[str]) -> Iterable[dict[str, Any]]:
    others = {one.name for one in entry_points(group=PROJECT)} - {name}
    alone: list[Plugins] = []
    yield _step("its hooks are imported", lambda: alone.append(Plugins.load(others)))
    plugin = next(one for one in alone[0] if one.name == name)
    yield _step("sglang_fl_register_settings", lambda: [one.key for one in _asked(plugin, "register_settings")])
    yield _step("sglang_fl_register_platforms", lambda: [one.name for one in _asked(plugin, "register_platforms")])
    plugins = Plugins.load()  # the platform may be another's
    offers = plugins.collect("sglang_fl_register_platforms", Platform)
    platform = next(offer.record for offer in offers if offer.record.name == platform_name)
    for where in (platform, platform, ELSEWHERE):
        yield _step(f"sglang_fl_register_ops for {where.name}", partial(_ops, plugin, where))
        yield _step(f"sglang_fl_register_communicators for {where.name}", partial(_communicators, plugin, where))
        yield _step(f"sglang_fl_default_settings for {where.name}", partial(_defaults, plugin, where))
    yield _step("core collects its records", lambda: _problem(plugins, name, platform))
    yield _step("is_available is asked", lambda: _answers(plugin, platform))
    yield _step("its functions are loaded", lambda: _load(plugin, platform))
    yield _step("sglang_fl_diagnose", lambda: _lines(plugin))
    _hide(sdk)
    yield _step("sglang_fl_diagnose without the SDK", lambda: _lines(plugin))


def _step(name: str, action: Callable[[], Any]) -> dict[str, Any]:
    modules, environ, threads = set(sys.modules), dict(os.environ), threading.active_count()
    answer, error = None, None
    try:
        answer = action()
    except (Exception, SystemExit) as raised:
        error = f"{type(raised).__name__}: {raised}"
    return {
        "step": name,
        "answer": answer,
        "error": error,
        "imported": sorted({module.partition(".")[0] for module in set(sys.modules) - modules}),
        "variables": sorted({key for key, _ in set(environ.items()) ^ set(os.environ.items())}),
        "threads": threading.active_count() - threads,
    }


def _asked(plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
    """The records that a hook of the plugin answers with; none where it has no such hook."""
    answers = getattr(plugin.relay, f"{PROJECT}_{hook}")(**arguments)
    return [record for answer in answers for record in answer]


def _impls(plugin: Plugin, platform: Platform) -> list[OpImpl]:
    return _asked(plugin, "register_ops", platform=platform)


def _ops(plugin: Plugin, platform: Platform) -> list[Any]:
    return [[impl.op, impl.impl_id, str(impl.kind)] for impl in _impls(plugin, platform)]


def _communicators(plugin: Plugin, platform: Platform) -> list[str]:
    found: list[Communicator] = _asked(plugin, "register_communicators", platform=platform, settings=_settings(plugin))
    return [one.name for one in found]


def _defaults(plugin: Plugin, platform: Platform) -> list[Any]:
    assert plugin.relay is not None, plugin
    answers = plugin.relay.sglang_fl_default_settings(platform=platform)
    return [[key, repr(value)] for answer in answers for key, value in sorted(answer.items())]


def _problem(plugins: Plugins, name: str, platform: Platform) -> str | None:
    collect_candidates(plugins, platform)
    problem = next(plugin.problem for plugin in plugins if plugin.name == name)
    return None if problem is None else str(problem)


def _answers(plugin: Plugin, platform: Platform) -> list[Any]:
    """What each record answers when it is asked whether it is available."""
    asked: list[Any] = [("the platform", platform.is_available)]
    asked += [(f"{impl.op} of {impl.impl_id}", impl.is_available) for impl in _impls(plugin, platform)]
    return [[what, _told(is_available)] for what, is_available in asked]


def _told(is_available: Callable[[], Any]) -> Any:
    try:
        answer = is_available()
    except (Exception, SystemExit) as raised:
        return f"raised {type(raised).__name__}: {raised}"
    return answer if isinstance(answer, str) else bool(answer)


def _load(plugin: Plugin, platform: Platform) -> list[str]:
    if platform.is_available() is not True:
        return []
    available = [impl for impl in _impls(plugin, platform) if impl.is_available() is True]
    for impl in available:
        impl.load()
        impl.load_accepts()
    return [impl.op for impl in available]


def _lines(plugin: Plugin) -> list[Any]:
    found = _asked(plugin, "diagnose", settings=_settings(plugin))
    return [[one.subject, one.ok, one.found, one.wanted, one.remedy] for one in found]


def _settings(plugin: Plugin) -> Settings:
    """The settings where the user sets none."""
    return load_settings({}, [(plugin.distribution, one) for one in _asked(plugin, "register_settings")])


def _hide(names: Sequence[str]) -> None:
    """From here on, importing ``names`` finds nothing, as where they are not installed."""
    finders = list(sys.meta_path)

    class Hiding:
        @staticmethod
        def find_spec(
            name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> importlib.machinery.ModuleSpec | None:
            if name.partition(".")[0] in names:
                return None
            specs = (finder.find_spec(name, path, target) for finder in finders)
            return next((spec for spec in specs if spec is not None), None)

    sys.meta_path[:] = [Hiding]
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]


if __name__ == "__main__":
    main(*sys.argv[1:])
