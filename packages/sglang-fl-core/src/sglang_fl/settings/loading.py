"""From the sources to one object: of each key, the highest source that speaks of it decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sglang_fl.records import Setting
from sglang_fl.settings.forms import FrozenMapping
from sglang_fl.settings.model import CORE, CORE_SETTINGS, DEFAULT, Origin, Settings
from sglang_fl.settings.sources import (
    Given,
    Source,
    Written,
    check_names,
    from_environment,
    from_file,
    is_set,
    read,
    read_defaults,
)
from sglang_fl.settings.vocabulary import Declared, Vocabulary, rivals, vocabulary


def load_settings(
    environ: Mapping[str, str],
    declared: Iterable[tuple[str, Setting]] = (),
    defaults: Iterable[tuple[str, Mapping[str, Any]]] = (),
) -> Settings:
    """Every setting's effective value.

    Args:
        environ: the environment; its ``SGLANG_FL_CONFIG`` names the YAML file, the only thing read besides.
        declared: the settings that backends add, as (distribution, setting).
        defaults: the platform's defaults from backends, as (distribution, mapping).

    Raises:
        SettingsError: for anything that cannot be meant as it is written.
    """
    known = vocabulary(declared)
    written = _of_user(environ, known)
    for one in written:
        check_names(one, known)
    return _settle([*(read(one, known) for one in written), read_defaults(defaults, known)], known)


def early_settings(environ: Mapping[str, str]) -> Settings:
    """Core's settings before any plugin is loaded, to say which to load and how to trace that.

    A name that core does not know may be a backend's, so it is left for :func:`load_settings` to judge, and the
    platform's defaults are not known yet. With ``SGLANG_FL_ENABLED=0`` nothing else is read: that must help
    whatever is wrong with the rest. Raises SettingsError for an ill-formed value of core's.
    """
    known = vocabulary(())
    switch = {"enabled": known["enabled"]}
    turned = read(from_environment(environ, switch), switch).get("enabled")
    if turned is not None and not turned.value:
        return Settings(enabled=False, origins=FrozenMapping({"enabled": turned.origin}))
    return _settle([read(one, known) for one in _of_user(environ, known)], known)


def _of_user(environ: Mapping[str, str], known: Vocabulary) -> list[Written]:
    """What the user wrote, highest first."""
    environment = from_environment(environ, known)
    config = read(environment, {"config": known["config"]}).get("config")
    return [environment] if config is None else [environment, from_file(config.value)]


def _settle(sources: Sequence[Source], known: Vocabulary) -> Settings:
    opposed = rivals(known)
    settled = {key: _decide(key, sources, opposed[key], known) for key in known}
    core = {setting.key for setting in CORE_SETTINGS}
    return Settings(
        **{key: given.value for key, given in settled.items() if key in core},
        of_backends=FrozenMapping({key: given.value for key, given in settled.items() if key not in core}),
        origins=FrozenMapping({key: given.origin for key, given in settled.items()}),
        backend_help=FrozenMapping({key: entry.setting.help for key, entry in known.items() if key not in core}),
    )


def _decide(key: str, sources: Sequence[Source], opposed: set[str], known: Vocabulary) -> Given:
    """The value of one key, and its origin with what that overrides. ``sources`` come highest first."""
    is_mentioned = any(key in source for source in sources)
    for rank, source in enumerate(sources if is_mentioned else ()):
        given = _claim(key, source, opposed, known)
        if given is not None:
            lower = [other[key].origin for other in sources[rank + 1 :] if key in other]
            return Given(given.value, _chain([given.origin, *lower]))
    return Given(known[key].default, _default_origin(known[key]))


def _claim(key: str, source: Source, opposed: set[str], known: Vocabulary) -> Given | None:
    """What one source says of a key: its value; or its default, where the source sets one that excludes it."""
    if key in source:
        return source[key]
    excluding = (source[other].origin for other in sorted(opposed) if is_set(other, source, known))
    return next((Given(known[key].default, origin) for origin in excluding), None)


def _chain(origins: Sequence[Origin]) -> Origin:
    first, *rest = origins
    return replace(first, over=_chain(rest)) if rest else first


def _default_origin(entry: Declared) -> Origin:
    return DEFAULT if entry.owner == CORE else Origin("code", f"default of {entry.owner}")
