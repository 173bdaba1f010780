"""The settings under which a subject is tested: its own as the user sets them, core's at their defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sglang_fl.declarations import declared_settings, default_settings
from sglang_fl.plugins import Plugins
from sglang_fl.records import Platform
from sglang_fl.settings import Settings, load_settings
from sglang_fl.settings.model import CORE_SETTINGS

_OF_CORE = {one.variable for one in CORE_SETTINGS}


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without core's settings, which choose who serves; and with ``variables``."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_CORE}
    return {**inherited, **variables}


def settings_for(plugins: Plugins, platform: Platform) -> Settings:
    """What the hooks of ``plugins`` are given. Raises SettingsError for settings of backends that mean nothing."""
    declared = declared_settings(plugins)
    return load_settings(clean_environment({}), declared, default_settings(plugins, platform, declared))
