"""Everything that one process knows: settings, plugins, platform, candidates. Built once, then only read."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from sglang_fl.aten import report_aten_ops
from sglang_fl.candidates import collect_candidates
from sglang_fl.communication.selection import CommunicatorSelection, collect_communicators, select_communicator
from sglang_fl.declarations import Declared, declared_settings, default_settings
from sglang_fl.dispatch import Dispatcher
from sglang_fl.errors import SglangFlError
from sglang_fl.platforms import choose_platform
from sglang_fl.plugins import CORE, Offer, Plugins
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import AtenOp, Communicator, Platform
from sglang_fl.settings import Settings, early_settings, load_settings
from sglang_fl.settings.model import DEFAULT
from sglang_fl.tracing import Tracer
from sglang_fl.validation import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What the settings and the installed plugins come to in this process.

    Attributes:
        settings: every effective setting and where it came from.
        declared: the settings that plugins added, each with its distribution.
        plugins: the plugins, the broken ones with their problems.
        platforms: what the plugins offer, and ``platform`` what was chosen of it.
        candidates: every op implementation offered for the platform.
        communicators: every communicator offered for the platform.
        communicator: which of them, or SGLang's own, this process would have a group use, and why.
        dispatcher: selects and calls ops.
        tracer: where to record, or None.
    """

    settings: Settings
    declared: Declared
    plugins: Plugins
    platforms: tuple[Offer[Platform], ...]
    platform: Platform
    candidates: tuple[Candidate, ...]
    communicators: tuple[Offer[Communicator], ...]
    communicator: CommunicatorSelection
    dispatcher: Dispatcher
    tracer: Tracer | None

    @classmethod
    def start(cls, environ: Mapping[str, str]) -> Session:
        """Reads the settings, loads the plugins, chooses the platform and collects what serves it.

        Raises SglangFlError for what must not pass in silence; with ``strict``, for a broken plugin too.
        """
        early = early_settings(environ)  # which plugins to load, before they can declare settings of their own
        logging.getLogger("sglang_fl").setLevel(early.log_level)
        tracer = Tracer.start(early.trace, early.trace_dir)
        plugins = Plugins.load(early.disabled_plugins, tracer)
        declared = declared_settings(plugins)
        platforms = tuple(plugins.collect("sglang_fl_register_platforms", Platform))
        settings = load_settings(environ, declared)
        platform = choose_platform(platforms, settings.platform, str(settings.origin("platform"))).record
        settings = load_settings(environ, declared, default_settings(plugins, platform, declared))
        candidates = collect_candidates(plugins, platform)
        communicators = collect_communicators(plugins, platform, settings)
        serving = {plugin.name for plugin in plugins if plugin.problem is None}
        candidates = tuple(candidate for candidate in candidates if candidate.plugin in serving)
        if settings.strict and plugins.problems:
            raise plugins.problems[0]
        validate(settings, platform, candidates, communicators)
        if not settings.trace and settings.origin("trace_dir") != DEFAULT:
            logger.warning("trace_dir (%s) is in vain: trace is empty", settings.origin("trace_dir"))
        return cls(
            settings=settings,
            declared=declared,
            plugins=plugins,
            platforms=platforms,
            platform=platform,
            candidates=candidates,
            communicators=communicators,
            communicator=select_communicator(communicators, platform, settings),
            dispatcher=Dispatcher(candidates, SelectionPolicy.of(settings), tracer),
            tracer=tracer,
        )

    def activate(self) -> None:
        """Lets the plugins take effect in this process: a model worker, before its model is loaded.

        Raises PluginError when one fails: it may have done half of what it does. An SglangFlError of a plugin's own
        comes as it is.
        """
        with self._all_or_nothing():
            self.plugins.call("sglang_fl_activate", platform=self.platform, settings=self.settings)
        report_aten_ops(self.aten_ops(), self.tracer)

    def aten_ops(self) -> tuple[Offer[AtenOp], ...]:
        """The ops of PyTorch's own that plugins can replace: as it is once they are active, or as it would be.

        Raises as :meth:`activate` does.
        """
        with self._all_or_nothing():
            found = self.plugins.collect("sglang_fl_aten_ops", AtenOp, platform=self.platform, settings=self.settings)
        return tuple(found)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Raises for a plugin that is left out meanwhile."""
        serving = [plugin for plugin in self.plugins if plugin.problem is None]
        yield
        for plugin in serving:
            if plugin.problem is not None:
                said = plugin.problem.__cause__
                raise said if isinstance(said, SglangFlError) else plugin.problem


# A thread that asks while another starts the session waits for it, and so does a fork.
_starting = threading.RLock()
os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)
_under_way = threading.Lock()


@cache
def session() -> Session:
    """This process's session. SGLang calls its plugins without arguments, so there is one, made at first need.

    Raises SglangFlError as :meth:`Session.start` does, and for a hook that asks for it while it is being made.
    """
    with _starting:
        return _only_session()


@cache
def _only_session() -> Session:
    if not _under_way.acquire(blocking=False):
        raise SglangFlError(
            CORE,
            asked="an op or a setting",
            found="that the plugins are still being loaded",
            do="call ops from sglang_fl_activate on; until then name functions as 'module:attribute'",
        )
    try:
        return Session.start(os.environ)
    finally:
        _under_way.release()
