"""What a backend knows to fail, each with a reason; what is fixed must not stand there any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from sglang_fl.errors import nearest

FILE = "known_failures.yaml"


def expect_known_failures(folders: Sequence[Path], items: Sequence[pytest.Item], arguments: Sequence[str]) -> None:
    """Makes every test that is named in a folder's file one that must fail.

    Args:
        folders: those that hold subjects.
        items: the collected tests, before any is deselected.
        arguments: pytest's own, which tell whether all tests of a file were collected.

    Raises pytest.UsageError for an entry that names no test, or has no reason.
    """
    for folder in folders:
        tests = {item.name: item for item in items if item.path.parent == folder}
        for name, reason in read_known_failures(folder / FILE).items():
            if name in tests:
                told = f"{reason} ({FILE} says that it fails: if it passes, it is fixed, and must go from there)"
                tests[name].add_marker(pytest.mark.xfail(reason=told, strict=True))
            elif not any("::" in argument for argument in arguments):
                msg = f"{folder / FILE}: there is no test {name!r}; {nearest(name, tests)}"
                raise pytest.UsageError(msg)


def read_known_failures(path: Path) -> Mapping[str, str]:
    """Test id -> reason; empty where there is no file. Raises pytest.UsageError for anything else in it."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if content is None:
        return {}
    if not isinstance(content, dict):
        msg = f"{path} holds {content!r:.60}; write lines like  test_no_key[rotary_embedding]: why it fails"
        raise pytest.UsageError(msg)
    for name, reason in content.items():
        if not (isinstance(name, str) and isinstance(reason, str) and reason.strip()):
            msg = f"{path}: {name!r} has the reason {reason!r}; say in a few words why it fails"
            raise pytest.UsageError(msg)
    return content
