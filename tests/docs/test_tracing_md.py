"""The commands and programs of docs/tracing.md run, and print what it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from markdown_it import MarkdownIt

from sglang_fl.hookspecs import PROJECT

PAGE = Path(__file__).parents[2] / "docs" / "tracing.md"


def blocks(language: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(PAGE.read_text()) if token.info == language]


def shape(text: str) -> list[str]:
    """The words of ``text`` with every number as ``#``, since times and pids differ from run to run."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"[─│├└]", " ", text)).split()


def run(command: str, directory: Path) -> str:
    """What ``command`` prints with core alone, on a CPU, whatever else this environment has."""
    others = ",".join(entry_point.name for entry_point in entry_points(group=PROJECT))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_FL_")}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SGLANG_FL_PLATFORM": "cpu",
        "SGLANG_FL_DISABLED_PLUGINS": others,
    }
    done = subprocess.run(command, shell=True, cwd=directory, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    for name, program in zip(("norm.py", "cost.py"), blocks("python"), strict=True):
        (tmp_path / name).write_text(program)
    for console in blocks("console"):
        commands = re.findall(r"^\$ (.*)$", console, flags=re.MULTILINE)
        shown = re.sub(r"^\$ .*\n", "", console, flags=re.MULTILINE)
        assert shape("".join(run(command, tmp_path) for command in commands)) == shape(shown)
    assert json.loads((tmp_path / "traces" / "chrome.json").read_text())["traceEvents"]
    [file] = (tmp_path / "traces").glob("*.jsonl")
    [record] = blocks("json")
    assert list(json.loads(record)) == list(json.loads(file.read_text().splitlines()[-1]))
