"""What the places outside the code say: the environment, the YAML file, and the backends' platform defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sglang_fl.errors import SettingsError, nearest
from sglang_fl.records import Setting
from sglang_fl.settings.model import CORE, Kind, Origin
from sglang_fl.settings.vocabulary import Declared, Vocabulary, read_value, rivals
from sglang_fl.settings.yaml_file import read_yaml

_PREFIXES = ("SGLANG_FL_", "SGLANG_FLAGGEMS_")
"""No variable of another program begins so. SGLang has some that begin with ``SGLANG_FLASHINFER``."""
BARRED: Mapping[Kind, frozenset[str]] = {
    "platform": frozenset({"enabled", "config", "platform", "disabled_plugins", "trace", "trace_dir"}),
    "yaml": frozenset({"enabled", "config"}),
    "environment": frozenset(),
}
"""What a kind of source cannot set, because it has taken effect before that source is read."""

# Settings of the backends beside core, known here so that without their backend they are refused, not ignored.
_KEYS_OF: Mapping[str, frozenset[str]] = {
    "sglang-fl-flaggems": frozenset(
        {
            *("use_flaggems", "flagos_whitelist", "flagos_blacklist"),
            *("flaggems_record", "flaggems_log_path", "flaggems_log_once"),
        }
    ),
    "sglang-fl-flagcx": frozenset(
        {"flagcx_path", "flagcx_use_tuner", "flagcx_use_hetero_comm", "flagcx_custom_op_enable"}
    ),
}
_VARIABLES_OF: Mapping[str, frozenset[str]] = {
    "sglang-fl-flaggems": frozenset(
        {
            *("USE_FLAGGEMS", "SGLANG_FL_FLAGOS_WHITELIST", "SGLANG_FL_FLAGOS_BLACKLIST"),
            *("SGLANG_FLAGGEMS_RECORD", "SGLANG_FLAGGEMS_LOG_PATH", "SGLANG_FLAGGEMS_LOG_ONCE"),
        }
    )
}
"""FlagCX's are not among them: it reads them itself, whoever uses it."""


class Given(NamedTuple):
    """What one source means by one key."""

    value: Any
    origin: Origin


Source = Mapping[str, Given]
"""What one source says, read and checked, by key."""


class Written(NamedTuple):
    """What one source says, as it is written there, by the names that it uses."""

    kind: Kind
    where: str
    content: Mapping[Any, object]

    def name(self, setting: Setting) -> str:
        """What this source calls the setting."""
        return setting.variable if self.kind == "environment" else setting.key

    def origin(self, setting: Setting) -> Origin:
        """Where in this source the setting stands."""
        name = self.name(setting)
        return Origin(self.kind, name if self.kind == "environment" else f"{self.where}: {name}")


def from_environment(environ: Mapping[str, str], known: Vocabulary) -> Written:
    """The variables that are ours, known or not. An empty one is as good as unset."""
    ours = {entry.setting.variable for entry in known.values()}.union(*_VARIABLES_OF.values())
    texts = {name: text.strip() for name, text in environ.items() if name in ours or name.startswith(_PREFIXES)}
    return Written("environment", "the environment", {name: text for name, text in texts.items() if text})


def from_file(path: Path) -> Written:
    """The YAML file at ``path``. Raises SettingsError where that is not a file with one mapping."""
    return Written("yaml", str(path.absolute()), read_yaml(path.absolute(), CORE))


def read_defaults(defaults: Iterable[tuple[str, Mapping[str, Any]]], known: Vocabulary) -> Source:
    """What backends give as their platform's defaults, as (distribution, mapping).

    Settings of another backend are left out where it is absent: a backend may bring defaults for it without
    depending on it. Raises SettingsError where two backends differ.
    """
    merged: dict[str, Given] = {}
    for provider, content in defaults:
        for key, given in _read_provider(provider, content, known).items():
            if key in merged and merged[key].value != given.value:
                raise _disagreement(key, merged[key], given)
            merged.setdefault(key, given)
    _check_exclusions("the platform's defaults", merged, known)
    return merged


def read(written: Written, known: Vocabulary) -> Source:
    """The known settings that a source sets. Raises SettingsError for a value that is not what it must be."""
    present = {key: entry for key, entry in known.items() if written.name(entry.setting) in written.content}
    source = {key: _read_one(written, entry) for key, entry in present.items()}
    _check_allowed(written, source, known)
    _check_exclusions(written.where, source, known)
    return source


def check_names(written: Written, known: Vocabulary) -> None:
    """Raises SettingsError for a name that nobody declares."""
    valid = {written.name(entry.setting) for key, entry in known.items() if key not in BARRED[written.kind]}
    declared = {written.name(entry.setting) for entry in known.values()}
    for name in written.content:
        if name not in declared:
            raise _unknown(name, written, valid)


def is_set(key: str, source: Source, known: Vocabulary) -> bool:
    """Whether ``source`` gives ``key`` a value other than its default."""
    return key in source and source[key].value != known[key].default


def _read_one(written: Written, entry: Declared) -> Given:
    origin = written.origin(entry.setting)
    return Given(read_value(entry, written.content[written.name(entry.setting)], str(origin)), origin)


def _read_provider(provider: str, content: object, known: Vocabulary) -> Source:
    if not isinstance(content, Mapping):
        raise SettingsError(
            provider,
            asked="its platform's default settings",
            found=f"a {type(content).__name__}, not a mapping",
            do="return a mapping with the keys of the YAML file",
        )
    present = {key: value for key, value in content.items() if key in known or _owner(key, _KEYS_OF) is None}
    written = Written("platform", f"defaults of {provider}", present)
    check_names(written, known)
    return read(written, known)


def _check_allowed(written: Written, source: Source, known: Vocabulary) -> None:
    for key in sorted(BARRED[written.kind] & source.keys()):
        raise SettingsError(
            CORE,
            asked=f"{key} ({source[key].origin})",
            found="that it has taken effect before this is read",
            do=f"set {known[key].setting.variable} in the environment",
        )


def _check_exclusions(where: str, source: Source, known: Vocabulary) -> None:
    opposed = rivals(known)
    for key in source:
        for other in sorted(opposed[key] & source.keys()):
            if is_set(key, source, known) and is_set(other, source, known):
                raise SettingsError(
                    CORE,
                    asked=f"{source[key].origin} together with {source[other].origin}",
                    found=f"two lists that exclude each other, both in {where}",
                    do="keep one of them",
                )


def _unknown(name: object, written: Written, valid: Iterable[str]) -> SettingsError:
    owner = _owner(name, _VARIABLES_OF if written.kind == "environment" else _KEYS_OF)
    if owner is not None:
        found = f"that it is a setting of {owner}, which is not installed or not loaded"
        do = f"install {owner}, or leave it out; `sglang-fl plugins` shows what is loaded"
    else:
        found = "no setting of that name, neither core's nor a loaded backend's"
        do = nearest(str(name), valid)
    return SettingsError(CORE, asked=f"{name} ({written.where})", found=found, do=do)


def _owner(name: object, names_of: Mapping[str, frozenset[str]]) -> str | None:
    return next((backend for backend, names in names_of.items() if name in names), None)


def _disagreement(key: str, one: Given, other: Given) -> SettingsError:
    return SettingsError(
        CORE,
        asked=f"the platform's default of {key}",
        found=f"{one.value!r} ({one.origin}) and {other.value!r} ({other.origin})",
        do="leave one of the two backends out with SGLANG_FL_DISABLED_PLUGINS, and tell their authors",
    )
