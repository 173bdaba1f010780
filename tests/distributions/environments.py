"""Clean environments: nothing but what uv installs into them from the wheels that were built here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.uv import uv


@dataclass(frozen=True)
class Environment:
    """A virtual environment in ``folder``."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where its packages lie."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def install(self, *arguments: object) -> None:
        """``uv pip install`` into it."""
        uv("pip", "install", "--quiet", "--python", self.python, *arguments)

    def packages(self) -> set[str]:
        """The names of the distributions that are installed in it."""
        return {one["name"] for one in json.loads(uv("pip", "list", "--format", "json", "--python", self.python))}

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs its ``sglang-fl``, with no setting of SGLang's or of ours."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG", "PYTHONPATH"))}
        return subprocess.run(
            [self.folder / "bin" / "sglang-fl", *arguments],
            env={**inherited, "CUDA_VISIBLE_DEVICES": ""},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def plugins(self) -> dict[str, dict[str, Any]]:
        """What its ``sglang-fl plugins`` shows, by plugin."""
        return {plugin["name"]: plugin for plugin in json.loads(self.cli("plugins", "--json").stdout)["plugins"]}


def clean(folder: Path) -> Environment:
    """Makes an empty environment."""
    uv("venv", "--quiet", "--python", sys.executable, folder)
    return Environment(folder)


def beside_sglang(folder: Path) -> Environment:
    """Makes an environment that finds all that is installed in this process's, but for distributions of ours.

    The others are found in a folder of links outside of it, so that no installer can remove them, and it has the
    commands ``sglang``, ``pytest`` and ``pip``.
    """
    environment, links = clean(folder), folder.with_name(f"{folder.name}-links")
    links.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "sglang_fl" not in entry.name:
            (links / entry.name).symlink_to(entry)
    (environment.site / "links.pth").write_text(f"import site; site.addsitedir({str(links)!r})\n")
    for name in ("sglang", "pytest", "pip"):
        _add_command(environment, name)
    return environment


def _add_command(environment: Environment, name: str) -> None:
    (found,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    command = environment.folder / "bin" / name
    command.write_text(
        f"#!{environment.python}\n"
        f"from {found.module} import {found.attr}\n"
        f"if __name__ == '__main__':\n"  # its children import it
        f"    raise SystemExit({found.attr}())\n"
    )
    command.chmod(0o755)
