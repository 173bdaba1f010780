"""What plugins say about settings: those they add, and their defaults for a platform.

Each plugin's are tried on their own first, so that a broken one is left out and the rest is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglang_fl.plugins import Plugins
from sglang_fl.records import Platform, Setting
from sglang_fl.settings import load_settings

Declared = tuple[tuple[str, Setting], ...]
"""Settings that plugins add, each with its distribution."""


def declared_settings(plugins: Plugins) -> Declared:
    """The settings that the plugins add. Two plugins at odds are not told apart here: both are right on their own."""
    offers = plugins.collect("sglang_fl_register_settings", Setting)
    for plugin in {id(offer.plugin): offer.plugin for offer in offers}.values():
        try:
            load_settings({}, [(plugin.distribution, offer.record) for offer in offers if offer.plugin is plugin])
        except Exception as error:
            plugins.leave_out(plugin, "its settings", error)
    return tuple((offer.plugin.distribution, offer.record) for offer in offers if offer.plugin.problem is None)


def default_settings(plugins: Plugins, platform: Platform, declared: Declared) -> list[tuple[str, Mapping[str, Any]]]:
    """The plugins' defaults for ``platform``, each with its distribution."""
    defaults = []
    for plugin, answer in plugins.call("sglang_fl_default_settings", platform=platform):
        try:
            load_settings({}, declared, [(plugin.distribution, answer)])
        except Exception as error:
            plugins.leave_out(plugin, f"its default settings for {platform.name}", error)
        else:
            defaults.append((plugin.distribution, answer))
    return defaults
