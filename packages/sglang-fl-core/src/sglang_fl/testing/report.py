"""What a run came to, subject by subject and level by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sglang_fl.testing.levels import LEVELS


@dataclass
class LevelReport:
    """One level of one subject.

    Attributes:
        outcomes: ``"passed" | "failed" | "known failure" | "skipped"`` -> number of tests.
        skips: reason -> number of tests.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.outcomes["failed"]:
            return "failed"
        return "passed" if self.outcomes["passed"] else "not run"

    def __str__(self) -> str:
        told = [f"{self.outcomes[name]} {name}" for name in ("failed", "passed", "skipped") if self.outcomes[name]]
        known = self.outcomes["known failure"]
        return ", ".join([*told, *([f"{known} known failure{'s' * (known > 1)}"] if known else [])])


@dataclass
class OpTally:
    """The calls that one op's tests offered, and the reasons of those that were refused."""

    calls: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass
class SubjectReport:
    """One subject: what it is, and how each level went."""

    facts: Mapping[str, Any]
    levels: dict[str, LevelReport] = field(default_factory=lambda: {level: LevelReport() for level in LEVELS})
    ops: dict[str, OpTally] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, told: Mapping[str, Any], outcome: str, reason: str | None) -> None:
        """Counts one test."""
        level = self.levels[told["level"]]
        level.outcomes[outcome] += 1
        if reason is not None:
            level.skips[reason] += 1
        if "op" in told:
            tally = self.ops.setdefault(told["op"], OpTally())
            tally.calls += told["calls"]
            tally.refused.update(told["refused"])
        self.notes.update(dict.fromkeys(told.get("notes", ())))

    @property
    def title(self) -> str:
        """The subject and where it ran."""
        return f"{self.facts['subject']} on {self.facts['platform']} ({self.facts['device']})"

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield ", ".join(f"{name} {version}" for name, version in self.facts["versions"].items())
        for name, level in self.levels.items():
            if level.outcomes:
                yield f"{name} {level.verdict:8} {LEVELS[name]}: {level}"
        yield from (f"skipped {count}: {reason}" for reason, count in self._skips().most_common())
        for op, tally in sorted(self.ops.items()):
            for reason, count in tally.refused.most_common():
                yield f"refused {count} of {tally.calls} calls of {op}: {reason}"
        yield from self.notes

    def _skips(self) -> Counter[str]:
        return sum((level.skips for level in self.levels.values()), Counter())
