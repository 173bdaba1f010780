"""Finds the backends and calls their hooks, each on its own: a broken one is reported and left out."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from sglang_fl import hookspecs
from sglang_fl.brief import brief
from sglang_fl.errors import PluginError, SglangFlError, nearest
from sglang_fl.hookspecs import PROJECT

if TYPE_CHECKING:
    from sglang_fl.tracing import Tracer

logger = logging.getLogger(__name__)

CORE = "sglang-fl-core"
REFERENCE = "reference"
"""The name of core's own plugin."""
SPECS = tuple(name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_"))

Record = TypeVar("Record")


@dataclass
class Plugin:
    """One backend's registered module.

    Attributes:
        name: its entry point's name.
        distribution, version: where it was installed from.
        hooks: the hooks that it implements.
        problem: why it is left out, or None while it serves.
        relay: pluggy's callers of its hooks. Each plugin has its own, so that no other can disturb a call.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    problem: PluginError | None = None
    relay: pluggy.HookRelay | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Offer(Generic[Record]):
    """A record and the plugin that it came from."""

    record: Record
    plugin: Plugin


class Plugins:
    """The loaded backends of one process. Iterating gives every plugin, the broken ones too."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer
        self._plugins: list[Plugin] = []

    @classmethod
    def load(cls, disabled: Collection[str] = (), tracer: Tracer | None = None) -> Plugins:
        """Loads the default plugin and every installed one that is not ``disabled``."""
        from sglang_fl.reference import hooks as reference  # noqa: PLC0415 - a default plugin, not a part of core

        plugins = cls(tracer)
        plugins.add(Plugin(REFERENCE, CORE, importlib.metadata.version(CORE)), reference)
        for entry_point in sorted(importlib.metadata.entry_points(group=PROJECT), key=_entry_point_key):
            if entry_point.name not in disabled:
                plugins.add_entry_point(entry_point)
        return plugins

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins)

    @property
    def problems(self) -> list[PluginError]:
        """What is wrong with the plugins that are left out."""
        return [plugin.problem for plugin in self if plugin.problem is not None]

    def add_entry_point(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Imports the module that ``entry_point`` names and registers it."""
        plugin = Plugin(entry_point.name, *_origin(entry_point))
        try:
            module = entry_point.load()
        except (Exception, SystemExit) as error:
            self._plugins.append(plugin)
            self.leave_out(plugin, f"the module {entry_point.value!r}", error)
        else:
            self.add(plugin, module)

    def add(self, plugin: Plugin, module: object) -> None:
        """Registers a plugin's module, or leaves it out when its hooks are not ones that exist."""
        taken = next((other for other in self if other.name == plugin.name and other.problem is None), None)
        self._plugins.append(plugin)
        if taken is not None:
            do = f"uninstall {plugin.distribution} or {taken.distribution}"
            self.leave_out(plugin, f"the name {plugin.name!r}", f"it is taken by {taken}", do)
            return
        try:
            misfit = self._register(plugin, module)
        except Exception as error:  # pluggy refuses it, or looking into it raises
            self.leave_out(plugin, "its hooks", error)
        else:
            if misfit is not None:
                self.leave_out(plugin, *misfit)

    def call(self, hook: str, **arguments: Any) -> list[tuple[Plugin, Any]]:
        """Calls ``hook`` of each plugin that has it, and gives each answer but None with its plugin.

        A plugin that raises is left out from here on.
        """
        answers: list[tuple[Plugin, Any]] = []
        for plugin in self:
            if plugin.problem is None and hook in plugin.hooks:
                try:
                    answers += [(plugin, answer) for answer in getattr(plugin.relay, hook)(**arguments)]
                except (Exception, SystemExit) as error:
                    self.leave_out(plugin, f"its hook {hook}", error)
        return answers

    def collect(self, hook: str, kind: type[Record], **arguments: Any) -> list[Offer[Record]]:
        """The records of type ``kind`` that ``hook`` returns. A plugin that returns anything else is left out."""
        offers: list[Offer[Record]] = []
        for plugin, answer in self.call(hook, **arguments):
            try:
                offers += [Offer(_checked(record, kind), plugin) for record in _each(answer)]
            except (Exception, SystemExit) as error:  # a generator raises here, not in the call
                self.leave_out(plugin, f"{kind.__name__} records from its hook {hook}", error)
        return [offer for offer in offers if offer.plugin.problem is None]

    def leave_out(self, plugin: Plugin, asked: str, found: str | BaseException, do: str | None = None) -> None:
        """Reports ``plugin`` as broken; it is not called again. An error of ours says itself what to do about it."""
        cause = found if isinstance(found, BaseException) else None
        do = do or f"mend or upgrade {plugin.distribution}, or set SGLANG_FL_DISABLED_PLUGINS={plugin.name}"
        if isinstance(cause, SglangFlError):
            asked, found, do = f"{asked}, and there for {cause.asked}", cause.found, cause.do
        elif cause is not None and not isinstance(cause, _Garbage):
            found = f"{type(cause).__name__}: {cause}"
        plugin.problem = PluginError(str(plugin), asked=asked, found=str(found), do=do)
        plugin.problem.__cause__ = cause
        logger.warning("left out: %s", plugin.problem)

    def _register(self, plugin: Plugin, module: object) -> tuple[str, str] | None:
        """Gives ``plugin`` its hooks; or says what it asked for that cannot be, and why."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        options = {name: manager.parse_hookimpl_opts(module, name) for name in dir(module)}
        marked = {name: chosen for name, chosen in options.items() if chosen is not None}
        misfit = _misfit(module, marked)
        if misfit is None:
            manager.register(module, plugin.name)
            if self._tracer is not None:
                self._tracer.watch(manager)
            plugin.relay, plugin.hooks = manager.hook, tuple(marked)
        return misfit


class _Garbage(TypeError):
    """A hook's answer that is not made of records."""


def _misfit(module: object, marked: Mapping[str, pluggy.HookimplOpts]) -> tuple[str, str] | None:
    """What a plugin's module asks for that cannot be, and why; None when its hooks are ones that exist."""
    unmarked = [name for name in dir(module) if name.startswith(f"{PROJECT}_") and name not in marked]
    functions = [name for name in unmarked if inspect.isroutine(getattr(module, name))]
    for name in (*marked, *functions):
        if name not in SPECS:
            return f"a hook {name!r}", f"no such hook; {nearest(name, SPECS)}"
    for name, options in marked.items():
        if options["wrapper"] or options["hookwrapper"] or options["specname"]:
            return f"the hook {name!r} with options", "only a plain @hookimpl: each plugin is asked on its own"
    if functions:
        return f"the function {functions[0]!r}", "it is not marked with @hookimpl"
    return None if marked else ("its hooks", f"none; {nearest('', SPECS)}")


def _each(answer: Any) -> Iterable[Any]:
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        msg = f"{brief(answer)}, which is no list of records"
        raise _Garbage(msg)
    return answer


def _checked(record: Any, kind: type[Record]) -> Record:
    if not isinstance(record, kind):
        msg = f"{brief(record)} among them"
        raise _Garbage(msg)
    return record


def _origin(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    dist = entry_point.dist
    if dist is None or "Name" not in dist.metadata:  # an uninstallation that was cut short leaves such ones
        return "an unknown distribution", ""
    return dist.name, dist.version


def _entry_point_key(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return entry_point.name, _origin(entry_point)[0]
