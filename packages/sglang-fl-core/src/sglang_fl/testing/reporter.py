"""Listens to pytest's reports and tells, in the end, what they came to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sglang_fl.testing.matrix import write_matrix
from sglang_fl.testing.report import SubjectReport

PROPERTY = "sglang_fl"
"""The user property in which a test of the suite describes itself, as JSON. JUnit files have it too."""


class Reporter:
    """A plugin of pytest. With pytest-xdist it works where the workers' reports arrive."""

    def __init__(self) -> None:
        self.subjects: dict[str, SubjectReport] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts a test of the suite once."""
        told = next((json.loads(str(text)) for name, text in report.user_properties if name == PROPERTY), None)
        outcome = None if told is None else _outcome(report)
        if told is None or outcome is None:
            return
        subject = self.subjects.setdefault(f"{told['subject']} {told['platform']}", SubjectReport(told))
        subject.add(told, outcome, _reason(report) if outcome == "skipped" else None)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """The report as text, and the matrix."""
        for subject in self.subjects.values():
            terminalreporter.write_sep("=", f"conformance: {subject.title}")
            for line in subject.lines():
                terminalreporter.write_line(line)
        path = config.getoption("sglang_fl_matrix")
        if path is not None:
            write_matrix(path, self.subjects.values())
            terminalreporter.write_line(f"support matrix: {path}")


def _outcome(report: pytest.TestReport) -> str | None:
    """How a test ended, or None for a phase that says nothing of it."""
    if report.failed:
        return "failed"
    if report.skipped:
        return "known failure" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None


def _reason(report: Any) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(told).removeprefix("Skipped: ")
