"""``sglang-fl new-backend``: writes a whole distribution for a new chip, whose tests pass on a CPU at once."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sglang_fl.cli.loading import collect, load_plugins, quietly
from sglang_fl.cli.output import AsJson, show_json
from sglang_fl.errors import SglangFlError
from sglang_fl.plugins import CORE
from sglang_fl.records import Platform

_TEMPLATE = Path(__file__).with_name("new_backend_template")
_SUFFIX = ".tmpl"  # so that no tool takes a template for a module of ours
_PLACEHOLDER = "mychip"


def new_backend(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The chip: a lower-case identifier.", show_default=False)],
    directory: Annotated[Path, typer.Option(help="Where to make the folder sglang-fl-NAME.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a backend for the chip NAME: hooks, a platform, an op, defaults, tests. They pass on a CPU at once."""
    quietly()
    _require_identifier(name)
    _require_free(name)
    folder = directory / _distribution(name)
    try:
        folder.mkdir(parents=True)
        files = [str(path) for path in _write(folder, name)]
    except OSError as error:
        do = "make room there, or choose another place with --directory"
        raise SglangFlError(CORE, asked=f"a new folder {folder}", found=str(error), do=do) from error
    if as_json:
        show_json({"folder": str(folder), "files": files})
    else:
        typer.echo(f'{folder}: {len(files)} files. Next:\n  pip install -e "{folder}[test]"\n  pytest {folder}')


def _distribution(name: str) -> str:
    return str(canonicalize_name(f"sglang-fl-{name}"))


def _write(folder: Path, name: str) -> Iterator[Path]:
    """Writes each file of the template into ``folder``, and yields its path."""
    for template in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        path = folder / _named(str(template.relative_to(_TEMPLATE)).removesuffix(_SUFFIX), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_named(template.read_text(encoding="utf-8"), name), encoding="utf-8")
        yield path


def _named(text: str, name: str) -> str:
    """``text`` with the name in the place of the template's, as a distribution is called and as everything else is."""
    return text.replace(_distribution(_PLACEHOLDER), _distribution(name)).replace(_PLACEHOLDER, name)


def _require_identifier(name: str) -> None:
    if re.fullmatch("[a-z][a-z0-9_]*", name) is None or keyword.iskeyword(name):
        raise _refused(name, "that it is no lower-case identifier of Python", "use a-z, 0-9 and _, as in: mychip")


def _require_free(name: str) -> None:
    distribution = _distribution(name)
    if distribution in _of_this_project() or _is_installed(distribution):
        raise _refused(name, f"that there is a distribution {distribution}", "choose another name")
    plugins = load_plugins()
    platforms = collect(plugins, "sglang_fl_register_platforms", Platform)
    owners = {plugin.name: plugin for plugin in plugins} | {offer.record.name: offer.plugin for offer in platforms}
    if name in owners:
        raise _refused(name, f"that {owners[name]} has it for its own", "choose another name")


def _of_this_project() -> set[str]:
    """The backends that core's extras install, whether or not they are installed here."""
    return {canonicalize_name(Requirement(line).name) for line in importlib.metadata.requires(CORE) or ()}


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _refused(name: str, found: str, do: str) -> SglangFlError:
    return SglangFlError(CORE, asked=f"a backend called {name!r}", found=found, do=do)
