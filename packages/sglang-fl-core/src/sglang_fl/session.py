"""Everything that one process knows: settings, plugins, platform, candidates. Built once, then only read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from sglang_fl.candidates import collect_candidates
from sglang_fl.dispatch import Dispatcher
from sglang_fl.platforms import choose_platform
from sglang_fl.plugins import Offer, Plugins
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import Communicator, Platform, Setting
from sglang_fl.settings import Settings, early_settings, load_settings
from sglang_fl.tracing import Tracer
from sglang_fl.validation import validate


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
        dispatcher: selects and calls ops.
        tracer: where to record, or None.
    """

    settings: Settings
    declared: tuple[tuple[str, Setting], ...]
    plugins: Plugins
    platforms: tuple[Offer[Platform], ...]
    platform: Platform
    candidates: tuple[Candidate, ...]
    communicators: tuple[Offer[Communicator], ...]
    dispatcher: Dispatcher
    tracer: Tracer | None

    @classmethod
    def start(cls, environ: Mapping[str, str]) -> Session:
        """Reads the settings, loads the plugins, chooses the platform and collects what serves it.

        Raises SglangFlError for what must not pass in silence; with ``strict``, for a broken plugin too.
        """
        early = early_settings(environ)  # which plugins to load, before they can declare settings of their own
        tracer = Tracer.start(early.trace, early.trace_dir)
        plugins = Plugins.load(early.disabled_plugins, tracer)
        declared = tuple(
            (offer.plugin.distribution, offer.record)
            for offer in plugins.collect("sglang_fl_register_settings", Setting)
        )
        platforms = tuple(plugins.collect("sglang_fl_register_platforms", Platform))
        settings = load_settings(environ, declared)
        platform = choose_platform(platforms, settings.platform, str(settings.origin("platform"))).record
        answers = plugins.call("sglang_fl_default_settings", platform=platform)
        settings = load_settings(environ, declared, [(plugin.distribution, answer) for plugin, answer in answers])
        candidates = collect_candidates(plugins, platform)
        communicators = tuple(plugins.collect("sglang_fl_register_communicators", Communicator, platform=platform))
        if settings.strict and plugins.problems:
            raise plugins.problems[0]
        validate(settings, platform, candidates, communicators)
        dispatcher = Dispatcher(candidates, SelectionPolicy.of(settings), tracer)
        return cls(settings, declared, plugins, platforms, platform, candidates, communicators, dispatcher, tracer)

    def activate(self) -> None:
        """Lets the plugins take effect in this process: a model worker, before its model is loaded.

        Raises PluginError when one fails: it may have done half of what it does.
        """
        before = len(self.plugins.problems)
        self.plugins.call("sglang_fl_activate", platform=self.platform, settings=self.settings)
        if len(self.plugins.problems) > before:
            raise self.plugins.problems[-1]


@cache
def session() -> Session:
    """This process's session. SGLang calls its plugins without arguments, so there is one, made at first need."""
    return Session.start(os.environ)
