"""Merges the files of a trace into one report: processes, hook calls, selections, op calls and what else happened."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sglang_fl.trace_collectives import CollectiveCounts, CollectiveRow
from sglang_fl.trace_records import (
    AtenReplaced,
    Bound,
    Call,
    Collective,
    Damage,
    HookCall,
    Lost,
    ProcessName,
    Quarantine,
    Record,
    Selected,
    Settled,
    Start,
    read_records,
    trace_files,
)

SHAPES_SHOWN = 3

R = TypeVar("R", bound=Record)
Events = list[tuple["Process", R]]


@dataclass
class Process:
    """Who wrote one file.

    Attributes:
        label: its name and pid, with the host in front when the trace is of several.
        started: seconds since the epoch.
        argv, versions: its command line, and what it had installed.
        records: how many there are; ``lost`` could not be written, ``unreadable`` lines not read.
        cut: the last line is incomplete: the process was killed, or is still writing.
    """

    file: str
    name: str = ""
    label: str = ""
    host: str = ""
    pid: int = 0
    started: float = 0.0
    epoch_ns: int = 0
    argv: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    records: int = 0
    lost: int = 0
    unreadable: int = 0
    cut: bool = False

    def note(self, record: Record) -> None:
        """Learns from one of its records."""
        if self.records == 0:
            self.name, self.pid, self.started = record.process, record.pid, record.t
            self.epoch_ns = round(record.t * 1e9) - record.ns
        self.records += 1
        if isinstance(record, Start):
            self.host, self.argv, self.versions = record.host, record.argv, record.versions
        elif isinstance(record, ProcessName):
            self.name = record.name
        elif isinstance(record, Lost):
            self.lost += record.records


@dataclass(frozen=True)
class Answer:
    """What one plugin answered in a hook call: its result or its exception. None where pluggy does not tell it."""

    plugin: str
    result: str | None
    raised: str | None
    ms: float | None


@dataclass(frozen=True)
class HookNode:
    """Hook calls of one process that followed each other, for the same hook with the same arguments."""

    process: str
    hook: str
    arguments: dict[str, str]
    ms: float
    answers: list[Answer]


@dataclass(frozen=True)
class OpRow:
    """The calls of one op through one implementation.

    Attributes:
        layers: layer class -> how many layers of it, by name; 0 when they have no names.
        shapes: the most frequent, each with its number of calls; ``distinct_shapes`` is how many there are.
        total_ms, median_us, max_us: host time.
    """

    op: str
    implementation: str
    calls: int
    raised: int
    layers: dict[str, int]
    shapes: list[tuple[str, int]]
    distinct_shapes: int
    total_ms: float
    median_us: float
    max_us: float
    processes: list[str]


@dataclass(frozen=True)
class Shared:
    """Something that one or more processes recorded alike."""

    processes: list[str]
    what: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """All processes, merged by time.

    Attributes:
        selections, bound, aten, communicators: their records' fields, each with the processes that agree on it.
        quarantines, others: records with their process; ``others`` are of kinds that this version does not know.
    """

    processes: list[Process]
    hooks: list[HookNode]
    selections: list[Shared]
    bound: list[Shared]
    aten: list[Shared]
    ops: list[OpRow]
    communicators: list[Shared]
    collectives: list[CollectiveRow]
    quarantines: list[Shared]
    others: list[Shared]

    def as_dict(self) -> dict[str, Any]:
        """The report in plain types."""
        return dataclasses.asdict(self)


def read_report(paths: Iterable[Path]) -> Report:
    """Reads files and directories of files. Raises TraceError for what is not a trace.

    Op calls and collectives are counted as they are read and not kept: a trace of a served model has millions.
    """
    processes: list[Process] = []
    events: Events[Record] = []
    calls: dict[tuple[str, str], _Calls] = {}
    collectives = CollectiveCounts()
    for path in trace_files(paths):
        process, damage = Process(str(path), path.stem), Damage()
        processes.append(process)
        for record in read_records(path, damage):
            process.note(record)
            if isinstance(record, Call):
                calls.setdefault((record.op, record.implementation), _Calls()).add(process, record)
            elif isinstance(record, Collective):
                collectives.add(process.file, record)
            else:
                events.append((process, record))
        process.cut, process.unreadable = damage.cut, damage.unreadable
    processes.sort(key=lambda process: process.started)
    _label(processes)
    events.sort(key=lambda event: event[0].epoch_ns + event[1].ns)
    return Report(
        processes=processes,
        hooks=[node for process in processes for node in _hook_nodes(process, _of(events, HookCall))],
        selections=_shared((process, record.fields()) for process, record in _of(events, Selected)),
        bound=_shared((process, row.model_dump()) for process, record in _of(events, Bound) for row in record.rows),
        aten=_shared((process, record.fields()) for process, record in _of(events, AtenReplaced)),
        ops=[calls[key].row(*key) for key in sorted(calls)],
        communicators=_shared((process, record.fields()) for process, record in _of(events, Settled)),
        collectives=collectives.rows({process.file: process.label for process in processes}),
        quarantines=_shared((process, record.fields()) for process, record in _of(events, Quarantine)),
        others=_shared(
            (process, {"kind": record.kind, **record.fields()}) for process, record in events if type(record) is Record
        ),
    )


class _Calls:
    """The calls of one implementation, counted."""

    def __init__(self) -> None:
        self._durations = array("q")
        self._raised = 0
        self._layers: dict[str, set[str]] = {}
        self._shapes: Counter[tuple[tuple[tuple[str, Any], ...], ...]] = Counter()
        self._processes: dict[int, Process] = {}

    def add(self, process: Process, call: Call) -> None:
        self._durations.append(call.duration_ns)
        self._raised += call.raised is not None
        self._layers.setdefault(call.layer_class, set()).update(() if call.layer is None else (call.layer,))
        self._shapes[tuple(call.shapes.items()), tuple(call.dtypes.items())] += 1
        self._processes[id(process)] = process

    def row(self, op: str, implementation: str) -> OpRow:
        return OpRow(
            op=op,
            implementation=implementation,
            calls=len(self._durations),
            raised=self._raised,
            layers={name: len(layers) for name, layers in sorted(self._layers.items())},
            shapes=[(_tensors(*shapes), n) for shapes, n in self._shapes.most_common(SHAPES_SHOWN)],
            distinct_shapes=len(self._shapes),
            total_ms=sum(self._durations) / 1e6,
            median_us=statistics.median(self._durations) / 1e3,
            max_us=max(self._durations) / 1e3,
            processes=[process.label for process in self._processes.values()],
        )


def _tensors(shapes: Iterable[tuple[str, Any]], dtypes: Iterable[tuple[str, str]]) -> str:
    """``x[4,576] residual[4,576] bfloat16``: each dtype once, after the tensors that have it."""
    shape_of = dict(shapes)
    groups = itertools.groupby(dtypes, key=lambda item: item[1])
    return " ".join(
        word
        for dtype, names in groups
        for word in (*(f"{name}[{','.join(map(str, shape_of.get(name, ['?'])))}]" for name, _ in names), dtype)
    )


def _label(processes: list[Process]) -> None:
    several = len({process.host for process in processes if process.host}) > 1
    for process in processes:
        if process.records:
            host = f"{process.host} " if several else ""
            process.label = f"{host}{process.name} ({process.pid})"
        else:
            process.label = process.name


def _of(events: Events[Record], kind: type[R]) -> Events[R]:
    return [(process, record) for process, record in events if isinstance(record, kind)]


def _shared(rows: Iterable[tuple[Process, dict[str, Any]]]) -> list[Shared]:
    """Equal rows of several processes become one, in the order of first appearance."""
    merged: dict[str, Shared] = {}
    for process, row in rows:
        shared = merged.setdefault(json.dumps(row, sort_keys=True), Shared([], row))
        if process.label not in shared.processes:
            shared.processes.append(process.label)
    return list(merged.values())


def _hook_nodes(process: Process, calls: Events[HookCall]) -> Iterator[HookNode]:
    mine = (call for caller, call in calls if caller is process)
    for (hook, arguments), group in itertools.groupby(mine, key=lambda call: (call.hook, call.arguments)):
        same = list(group)
        answers = [answer for call in same for answer in _answers(call)]
        yield HookNode(process.label, hook, arguments, sum(call.duration_ns for call in same) / 1e6, answers)


def _answers(call: HookCall) -> list[Answer]:
    """One per plugin where its result is known; pluggy gives no result when one raises, and drops None."""
    if call.raised is not None:
        return [Answer(call.raised.plugin or " or ".join(call.plugins), None, call.raised.error, _only(call))]
    if len(call.plugins) == 1:
        return [Answer(call.plugins[0], ", ".join(call.results) or "None", None, _only(call))]
    if len(call.plugins) == len(call.results):
        return [Answer(plugin, result, None, None) for plugin, result in zip(call.plugins, call.results, strict=True)]
    return [Answer(", ".join(call.plugins), "; ".join(call.results) or "None", None, None)]


def _only(call: HookCall) -> float | None:
    """The call's time, where it is one plugin's."""
    return call.duration_ns / 1e6 if len(call.plugins) == 1 else None
