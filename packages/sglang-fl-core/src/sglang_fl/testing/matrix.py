"""The support matrix: a Markdown table with a row for each subject, made by runs of the suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sglang_fl.testing.levels import LEVELS
from sglang_fl.testing.report import LevelReport, SubjectReport

HEADS = ("subject", "device", "versions", *LEVELS, "refused calls")
"""The columns."""

_KEY = 2
"""The first cells, which tell what a row is about."""

_MARKS = {"passed": "✓", "failed": "✗", "not run": "-"}


def matrix_row(report: SubjectReport) -> str:
    """The row of one subject."""
    facts = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    device = f"{facts['platform']}: {facts['device']}"
    refused = (f"{op} {sum(tally.refused.values())}/{tally.calls}" for op, tally in report.ops.items() if tally.refused)
    cells = (facts["subject"], device, versions, *map(_cell, report.levels.values()), ", ".join(refused) or "none")
    return _line(cells)


def write_matrix(path: Path, reports: Iterable[SubjectReport]) -> None:
    """Writes the rows of ``reports`` into the table in ``path``, in place of earlier ones of the same subjects."""
    rows = {_key(row): row for row in _rows_in(path)}
    rows |= {_key(row): row for row in map(matrix_row, reports)}
    lines = [_line(HEADS), _line("---" for _ in HEADS), *(rows[key] for key in sorted(rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows_in(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines[2:] if line.startswith("|")]


def _key(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.split("|")[1 : 1 + _KEY])


def _cell(level: LevelReport) -> str:
    passed, known = level.outcomes["passed"], level.outcomes["known failure"]
    count = f"{level.outcomes['failed']} of {sum(level.outcomes.values())}" if level.verdict == "failed" else passed
    return f"{_MARKS[level.verdict]} {count or ''}{f' ({known} known)' if known else ''}".strip()


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
