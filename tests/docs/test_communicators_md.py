"""The command and the communicator of docs/communicators.md do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import torch
from markdown_it import MarkdownIt

from sglang_fl.adapter import groups
from sglang_fl.hookspecs import PROJECT
from tests.ranks import run_ranks

PAGE = Path(__file__).parents[2] / "docs" / "communicators.md"


def block(language: str) -> str:
    """The page's one block of ``language``."""
    (found,) = [token.content for token in MarkdownIt().parse(PAGE.read_text()) if token.info == language]
    return str(found)


def words(text: str) -> list[str]:
    return re.sub(r"─+", " ", text).split()


def test_the_command_prints_what_the_page_shows() -> None:
    command, _, shown = block("console").partition("\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_FL_")}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SGLANG_FL_PLATFORM": "cpu",
        "SGLANG_FL_DISABLED_PLUGINS": ",".join(point.name for point in entry_points(group=PROJECT)),
    }
    done = subprocess.run(
        command.removeprefix("$ "), shell=True, env=environ, capture_output=True, text=True, check=True
    )
    assert words(done.stdout) == words(shown)


def sum_by_the_example(rank: int) -> tuple[str, float]:
    from tests.groups import agree_on, group_of_all, serve

    names: dict[str, object] = {}
    exec(block("python"), names)
    (record,) = names["sglang_fl_register_communicators"](None, None)  # type: ignore[operator]
    group = group_of_all()
    agreed = agree_on(group, record)
    assert agreed.collectives is not None
    one = torch.ones(3)
    serve(group, agreed.name, agreed.collectives).all_reduce(one)
    return agreed.name, float(one.sum())


def test_the_example_is_a_communicator_that_adds(tmp_path: Path) -> None:
    assert [rank.answer for rank in run_ranks(sum_by_the_example, 2, tmp_path)] == [("mycl", 6.0)] * 2


def test_the_page_names_every_method_of_sglangs_that_is_replaced() -> None:
    source = "".join(path.read_text() for path in Path(groups.__path__[0]).glob("*.py"))
    methods = re.findall(r"^    def ([a-z]\w+)\(\s*self", source, flags=re.MULTILINE)
    assert len(methods) > 15
    assert [name for name in methods if f"`{name}`" not in PAGE.read_text()] == []
