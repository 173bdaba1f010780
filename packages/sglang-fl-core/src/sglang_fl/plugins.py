"""Finds the backends and calls their hooks, each on its own: a broken one is reported and left out."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from sglang_fl import hookspecs
from sglang_fl.errors import PluginError, nearest
from sglang_fl.hookspecs import PROJECT

if TYPE_CHECKING:
    from sglang_fl.tracing import Tracer

logger = logging.getLogger(__name__)

CORE = "sglang-fl-core"
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
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    problem: PluginError | None = None

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}"


@dataclass(frozen=True)
class Offer(Generic[Record]):
    """A record and the plugin that it came from."""

    record: Record
    plugin: Plugin


class Plugins:
    """The loaded backends of one process. Iterating gives every plugin, the broken ones too."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        if tracer is not None:
            tracer.watch(self._manager)

    @classmethod
    def load(cls, disabled: Collection[str] = (), tracer: Tracer | None = None) -> Plugins:
        """Loads the default plugin and every installed one that is not ``disabled``."""
        from sglang_fl.reference import hooks as reference  # noqa: PLC0415 - a default plugin, not a part of core

        plugins = cls(tracer)
        plugins.add(Plugin("reference", CORE, importlib.metadata.version(CORE)), reference)
        for entry_point in sorted(importlib.metadata.entry_points(group=PROJECT), key=_entry_point_key):
            if entry_point.name not in disabled:
                plugins.add_entry_point(entry_point)
        return plugins

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins.values())

    @property
    def problems(self) -> list[PluginError]:
        """What is wrong with the plugins that are left out."""
        return [plugin.problem for plugin in self if plugin.problem is not None]

    def add_entry_point(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Imports the module that ``entry_point`` names and registers it."""
        distribution, version = _origin(entry_point)
        plugin = Plugin(entry_point.name, distribution, version)
        try:
            module = entry_point.load()
        except (Exception, SystemExit) as error:
            asked = f"the module {entry_point.value!r}"
            self._plugins[f"{plugin.name} of {distribution}"] = plugin
            self._leave_out(plugin, asked, f"{type(error).__name__}: {error}", error)
        else:
            self.add(plugin, module)

    def add(self, plugin: Plugin, module: object) -> None:
        """Registers a plugin's module, or leaves it out when its hooks are not ones that exist."""
        taken = self._plugins.get(plugin.name)
        key = plugin.name if taken is None else f"{plugin.name} of {plugin.distribution}"
        self._plugins[key] = plugin
        if taken is not None:
            self._leave_out(plugin, f"the name {plugin.name!r}", f"it is taken by {taken}")
            return
        marked = [name for name in dir(module) if self._manager.parse_hookimpl_opts(module, name) is not None]
        wrong = [name for name in dir(module) if name.startswith(f"{PROJECT}_") and name not in marked]
        unknown = [name for name in marked if name not in SPECS]
        if unknown:
            self._leave_out(plugin, f"a hook {unknown[0]!r}", f"no such hook; {nearest(unknown[0], SPECS)}")
        elif wrong and wrong[0] not in unknown and callable(getattr(module, wrong[0])):
            self._leave_out(plugin, f"the function {wrong[0]!r}", "it is not marked with @hookimpl")
        elif not marked:
            self._leave_out(plugin, "its hooks", f"none; {nearest('', SPECS)}")
        else:
            self._register(plugin, module, tuple(marked))

    def call(self, hook: str, **arguments: Any) -> list[tuple[Plugin, Any]]:
        """Calls ``hook`` of each plugin that has it, and gives each answer with its plugin.

        A plugin that raises is left out from here on.
        """
        answers = []
        for plugin in self:
            if plugin.problem is None and hook in plugin.hooks:
                try:
                    answers.append((plugin, self._call_one(plugin, hook, arguments)))
                except (Exception, SystemExit) as error:
                    self._leave_out(plugin, f"its hook {hook}", f"{type(error).__name__}: {error}", error)
        return answers

    def collect(self, hook: str, kind: type[Record], **arguments: Any) -> list[Offer[Record]]:
        """The records of type ``kind`` that ``hook`` returns. A plugin that returns anything else is left out."""
        offers: list[Offer[Record]] = []
        for plugin, answer in self.call(hook, **arguments):
            try:
                offers += [Offer(_checked(record, kind), plugin) for record in _each(answer)]
            except Exception as error:  # a generator raises here, not in the call
                self._leave_out(plugin, f"{kind.__name__} records from its hook {hook}", str(error), error)
        return [offer for offer in offers if offer.plugin.problem is None]

    def leave_out(self, plugin: Plugin, asked: str, found: str) -> None:
        """Reports ``plugin`` as broken; it is not called again."""
        self._leave_out(plugin, asked, found)

    def _register(self, plugin: Plugin, module: object, hooks: tuple[str, ...]) -> None:
        try:
            self._manager.register(module, plugin.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self._leave_out(plugin, "its hooks", str(error), error)
        else:
            plugin.hooks = hooks

    def _call_one(self, plugin: Plugin, hook: str, arguments: dict[str, Any]) -> Any:
        others = [module for name, module in self._manager.list_name_plugin() if name != plugin.name]
        answers = self._manager.subset_hook_caller(hook, others)(**arguments)
        return answers[0] if answers else None

    def _leave_out(self, plugin: Plugin, asked: str, found: str, cause: BaseException | None = None) -> None:
        plugin.problem = PluginError(
            str(plugin),
            asked=asked,
            found=found,
            do=f"mend or upgrade {plugin.distribution}, or set SGLANG_FL_DISABLED_PLUGINS={plugin.name}",
        )
        plugin.problem.__cause__ = cause
        logger.warning("left out: %s", plugin.problem)


def _each(answer: Any) -> Iterable[Any]:
    if answer is None:
        return ()
    if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        msg = f"{answer!r}, which is no list of records"
        raise TypeError(msg)
    return answer


def _checked(record: Any, kind: type[Record]) -> Record:
    if not isinstance(record, kind):
        msg = f"{record!r} among them"
        raise TypeError(msg)
    return record


def _origin(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    dist = entry_point.dist
    return (dist.name, dist.version) if dist is not None else ("an unknown distribution", "")


def _entry_point_key(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return entry_point.name, _origin(entry_point)[0]
