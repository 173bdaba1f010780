"""The collectives of a trace, counted: those that the group's communicator served, and those that went elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from sglang_fl.trace_records import Collective


@dataclass(frozen=True)
class CollectiveRow:
    """The calls of one collective in one group that went one way.

    Attributes:
        communicator: what served them; None for SGLang's own.
        reason: why SGLang's own did.
        bytes: the sum over the calls.
        dtypes: dtype -> how many of the calls.
    """

    group: str
    collective: str
    communicator: str | None
    reason: str | None
    calls: int
    bytes: int
    dtypes: dict[str, int]
    processes: list[str]


@dataclass
class _Count:
    calls: int = 0
    bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


class CollectiveCounts:
    """Counts as the records are read: a trace of a served model has millions."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str | None, str | None], _Count] = {}

    def add(self, file: str, record: Collective) -> None:
        """Counts a record of one file."""
        key = (record.group, record.collective, record.communicator, record.reason)
        count = self._counts.setdefault(key, _Count())
        count.calls += 1
        count.bytes += record.bytes
        count.dtypes[record.dtype] = count.dtypes.get(record.dtype, 0) + 1
        if file not in count.files:
            count.files.append(file)

    def rows(self, labels: dict[str, str]) -> list[CollectiveRow]:
        """By group and collective, what a communicator served first. ``labels`` are the processes' names, by file."""
        return [
            CollectiveRow(*key, count.calls, count.bytes, count.dtypes, [labels[file] for file in count.files])
            for key, count in sorted(self._counts.items(), key=lambda item: (*item[0][:2], item[0][3] or ""))
        ]
