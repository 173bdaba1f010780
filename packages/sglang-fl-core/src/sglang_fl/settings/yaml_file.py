"""A YAML file as a mapping, or an error that says where the file is wrong."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from sglang_fl.errors import SettingsError


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would silently keep the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node))
            if key in seen:
                raise ConstructorError(None, None, f"{key_node.value!r} is set a second time", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, who: str) -> dict[Any, Any]:
    """The file's mapping; an empty one for a file without content. Raises SettingsError for anything else."""
    if path.is_fifo():
        raise _unreadable(
            path, who, "a pipe, which can be read once", "write it to a file: every process of SGLang reads it"
        )
    try:
        content = yaml.load(path.read_bytes(), _StrictLoader)
    except OSError as error:
        found = f"{str(error.strerror)!r} on opening it (working directory: {Path.cwd()})"
        do = "give the path of a YAML file, or unset SGLANG_FL_CONFIG; `sglang-fl config --sample` writes one"
        raise _unreadable(path, who, found, do) from error
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not is a ValueError
        raise _ill_formed(path, who, error) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(
            who,
            asked=f"a mapping from {path}",
            found=f"a {type(content).__name__} ({content!r:.60})",
            do="write one `key: value` per line; `sglang-fl config --sample` shows every key",
        )
    return content


def _unreadable(path: Path, who: str, found: str, do: str) -> SettingsError:
    return SettingsError(who, asked=f"the settings file {path} (SGLANG_FL_CONFIG)", found=found, do=do)


def _ill_formed(path: Path, who: str, error: Exception) -> SettingsError:
    place, problem = str(path), " ".join(str(error).split())
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        place += f", line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        problem = ", ".join(filter(None, (error.context, error.problem)))
    return SettingsError(
        who, asked=f"YAML from {place}", found=f"an error there: {problem}", do="correct the file there"
    )
