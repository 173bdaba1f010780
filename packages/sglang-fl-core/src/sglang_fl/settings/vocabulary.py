"""Which names can be set, who declares each, and what a value given for one means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import ErrorDetails

from sglang_fl.errors import SettingsError, nearest
from sglang_fl.records import Setting
from sglang_fl.settings.forms import split
from sglang_fl.settings.model import CORE, CORE_SETTINGS

_LIST = "write a list, as in [A, B]; the empty one is []"
_BOOL = "write true or false, yes or no, on or off, 1 or 0"
# What to write, by the type of pydantic's error. It says more than pydantic's message, and in YAML's terms.
_REMEDIES = {
    "bool_parsing": _BOOL,
    "bool_type": _BOOL,
    "tuple_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": "write a mapping, as in {key: value}; the empty one is {}",
    "path_type": "write a path",
    "string_type": "write text, in quotes where YAML takes it for something else",
}


class Declared(NamedTuple):
    """A setting, the distribution that declares it, pydantic's reader of its type, and its default so read."""

    owner: str
    setting: Setting
    adapter: TypeAdapter[Any]
    is_list: bool
    is_number: bool
    default: Any = None


Vocabulary = Mapping[str, Declared]
"""Every setting by its key."""


def vocabulary(declared: Iterable[tuple[str, Setting]]) -> Vocabulary:
    """Core's settings and the ``declared`` ones, given as (distribution, setting).

    Raises SettingsError where a key or a variable is declared twice, a type cannot be read or can change, a default
    is not of its type, or a setting excludes one that nobody declares.
    """
    known = dict(_of_core())
    for owner, setting in declared:
        _check_new(owner, setting, known)
        known[setting.key] = _declare(owner, setting)
    for entry in known.values():
        _check_exclusion(entry, known)
    return known


def rivals(known: Vocabulary) -> dict[str, set[str]]:
    """For each key, the keys that may not be set together with it: exclusion holds both ways."""
    pairs = [(entry.setting.key, entry.setting.excludes) for entry in known.values() if entry.setting.excludes]
    both_ways = {*pairs, *((other, key) for key, other in pairs)}
    return {key: {other for one, other in both_ways if one == key} for key in known}


def read_value(entry: Declared, given: object, where: str) -> Any:
    """What ``given``, from YAML or from a variable, means for this setting. Raises SettingsError if it is nothing."""
    written = split(given, ",") if entry.is_list and isinstance(given, str) else given
    if entry.is_number and isinstance(given, bool):  # which pydantic would read as 1 or 0
        raise SettingsError(
            CORE, asked=f"{entry.setting.key} ({where})", found=repr(given), do=f"write a number: {entry.setting.help}"
        )
    try:
        value = entry.adapter.validate_python(written)
    except ValidationError as error:
        raise _value_error(entry.setting, where, error) from error
    _check_immutable(entry, value)
    return _without_tilde(value, entry.setting, where) if isinstance(value, Path) else value


def _without_tilde(path: Path, setting: Setting, where: str) -> Path:
    """A shell expands ``~`` in some places, and YAML in none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise SettingsError(
            CORE, asked=f"{setting.key} ({where})", found=f"'{path}': {error}", do="write a path without ~"
        ) from error


@cache
def _of_core() -> Vocabulary:
    """Core's own settings. pydantic takes a tenth of a second for them, and a process reads them several times."""
    return {setting.key: _declare(CORE, setting) for setting in CORE_SETTINGS}


def _declare(owner: str, setting: Setting) -> Declared:
    try:
        adapter = TypeAdapter(setting.type)
        schema = adapter.json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise SettingsError(
            owner,
            asked=f"the setting {setting.key!r} of type {setting.type!r}",
            found=f"that YAML has no such type ({error.message.splitlines()[0]})",
            do="declare a type that pydantic reads from YAML, such as bool, str or tuple[str, ...]",
        ) from error
    types = {form.get("type") for form in (schema, *schema.get("anyOf", ()))}
    is_number = bool(types & {"integer", "number"}) and "boolean" not in types
    entry = Declared(owner, setting, adapter, "array" in types, is_number)
    return entry._replace(default=read_value(entry, setting.default, f"its default in {owner}"))


def _value_error(setting: Setting, where: str, error: ValidationError) -> SettingsError:
    problem = error.errors()[0]
    context = problem.get("ctx", {})
    shown = "null" if problem["input"] is None else repr(problem["input"])
    return SettingsError(
        CORE,
        asked=f"{'.'.join(map(str, (setting.key, *problem['loc'])))} ({where})",
        found=context.get("found") or (shown if problem["type"] in _REMEDIES else f"{shown}: {problem['msg']}"),
        do=context.get("do") or _remedy(setting, problem),
    )


def _remedy(setting: Setting, problem: ErrorDetails) -> str:
    choices = re.findall("'([^']*)'", str(problem.get("ctx", {}).get("expected", "")))
    if choices:
        return nearest(str(problem["input"]), choices)
    return _REMEDIES.get(problem["type"], f"{setting.key} is {setting.help}")


def _check_immutable(entry: Declared, value: object) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise SettingsError(
            entry.owner,
            asked=f"the setting {entry.setting.key!r} of type {entry.setting.type!r}",
            found="that its values can change, while settings are shared between threads",
            do="declare an immutable type, such as tuple, frozenset or FrozenMapping",
        ) from error


def _check_new(owner: str, setting: Setting, known: Vocabulary) -> None:
    for other in known.values():
        same = {setting.key, setting.variable} & {other.setting.key, other.setting.variable}
        if same:
            raise SettingsError(
                owner,
                asked=f"a setting {max(same)} of its own",
                found=f"that {other.owner} declares it already",
                do="rename one of them, or leave one backend out with SGLANG_FL_DISABLED_PLUGINS",
            )


def _check_exclusion(entry: Declared, known: Vocabulary) -> None:
    excluded = entry.setting.excludes
    if excluded is not None and excluded not in known:
        raise SettingsError(
            entry.owner,
            asked=f"the setting {entry.setting.key!r}, which excludes {excluded!r}",
            found=f"no setting {excluded!r}",
            do=nearest(excluded, known),
        )
