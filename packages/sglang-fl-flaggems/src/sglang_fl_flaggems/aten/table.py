"""Which of PyTorch's ops FlagGems has functions for, read from its source: importing it needs an accelerator."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from sglang_fl import SglangFlError

from .settings import WHO

PACKAGE = "flag_gems"
NAME = "_FULL_CONFIG"

FIRST_RELEASE = "5.0.2"
"""The first release that is supported, and the one to install."""


@dataclass(frozen=True)
class Entry:
    """One overload of an ATen op.

    Attributes:
        key: the overload as PyTorch registers it: ``"add.Tensor"``, ``"mm"``.
        functions: FlagGems' functions for it; it registers each in turn, so the last one serves.
        condition: the source of FlagGems' own condition for registering it, if it has one.
    """

    key: str
    functions: tuple[str, ...]
    condition: str | None = None

    @property
    def op(self) -> str:
        """The op without its overload: ``"add"``, ``"add_"``."""
        return self.key.partition(".")[0]


Table = Mapping[str, Entry]
"""The entries by their keys."""


def installed_package() -> Path | None:
    """The folder of the FlagGems that ``import flag_gems`` would import, or None where there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def read_table(package: Path) -> Table:
    """The registrations in the source of ``package``, a release from 5.0.2 on.

    Raises SglangFlError where they are not to be found.
    """
    path = package / "__init__.py"
    table: dict[str, Entry] = {}
    try:
        for entry in map(_entry, _rows(ast.parse(path.read_text(encoding="utf-8")))):
            earlier = table[entry.key].functions if entry.key in table else ()
            table[entry.key] = Entry(entry.key, (*earlier, *entry.functions), entry.condition)
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise SglangFlError(
            WHO,
            asked=f"FlagGems' list of ops in {path}",
            found=f"none that can be read ({type(error).__name__}: {error})",
            do=f"install a release that is known: pip install flag-gems=={FIRST_RELEASE}",
        ) from error
    return table


def read_release(package: Path) -> str | None:
    """The version that is written in the source of ``package``, as it is up to 5.0.2; None where none can be read."""
    try:
        source = (package / "__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    written = re.search(r"^__version__ *= *([\"'])(.*)\1", source, re.MULTILINE)
    return written[2] if written is not None and _is_version(written[2]) else None


def of_release(build: str) -> Version:
    """The release that a ``build`` is of: ``5.0.2`` for ``"5.0.2+cu130"`` and ``"5.0.2.dev3"``."""
    return Version(Version(build).base_version)


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _rows(module: ast.Module) -> Iterator[ast.expr]:
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [NAME]:
            if not isinstance(node.value, ast.Tuple | ast.List):
                msg = f"{NAME} is {ast.unparse(node.value)[:60]}, no list"
                raise TypeError(msg)
            yield from node.value.elts
            return
    msg = f"no {NAME}"
    raise ValueError(msg)


def _entry(row: ast.expr) -> Entry:
    """From ``("add.Tensor", add)``, which a condition may follow, and after it further dispatch keys."""
    key, function, *more = row.elts if isinstance(row, ast.Tuple) else [row]
    condition = ast.unparse(more[0]).removeprefix("lambda: ") if more else "None"
    return Entry(str(ast.literal_eval(key)), (ast.unparse(function),), None if condition == "None" else condition)
