"""pytest's plugin: options, markers, header, known failures, report. Where no test file imports the suite, it is idle.

Every run of pytest in an environment with core loads it, so at first it imports nothing beyond pytest.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_fl.testing.levels import LEVELS
from sglang_fl.testing.reporter import Reporter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own, with our own prefix."""
    group = parser.getgroup("sglang-fl", "conformance of sglang-fl backends")
    group.addoption(
        "--sglang-fl-examples",
        type=int,
        default=20,
        metavar="N",
        help="how many calls of an op are drawn for each test (default: 20)",
    )
    group.addoption(
        "--sglang-fl-serve",
        type=shlex.split,
        default=[],
        metavar="ARGUMENTS",
        help="SGLang's arguments for every server that is started, as one text: what this machine needs",
    )
    group.addoption(
        "--sglang-fl-matrix",
        type=Path,
        metavar="FILE",
        help="write a row for each subject into this Markdown table; the rows of others stay",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The levels are markers; whoever reports listens."""
    for level, about in LEVELS.items():
        config.addinivalue_line("markers", f"{level}: conformance of sglang-fl backends: {about}")
    config.pluginmanager.register(Reporter(), "sglang_fl_reporter")
    pytest.register_assert_rewrite("sglang_fl.testing.suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before any test is deselected: the known failures must name tests that there are."""
    if _suite_is_used():
        from sglang_fl.testing import known_failures, subject  # noqa: PLC0415 - see above

        known_failures.expect_known_failures(list(subject.subjects_of(config)), items, config.args)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """The header: every subject, its versions, its device."""
    if not _suite_is_used():
        return []
    from sglang_fl.testing import subject  # noqa: PLC0415 - see above

    return [one.header for one in subject.subjects_of(config).values()]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets each test of the suite tell what it tested."""
    if _suite_is_used():
        from sglang_fl.testing import record, subject  # noqa: PLC0415 - see above

        tested = subject.subjects_of(item.config).get(item.path.parent)
        if tested is not None and record.level_of(item) is not None:
            record.attach(item, tested)
    return (yield)


def _suite_is_used() -> bool:
    return "sglang_fl.testing.suite" in sys.modules
