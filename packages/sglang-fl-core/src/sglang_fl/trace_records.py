"""The records of a trace, read back from the file of one process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from sglang_fl.errors import SglangFlError

BEGINNING = b'{"kind":"start",'
"""How every file begins, so that one cut in its first line is still known for a trace."""


class TraceError(SglangFlError):
    """What was given is not a trace."""


class Record(BaseModel):
    """What every record has. One of a kind that has no class below keeps its other fields as they are.

    Attributes:
        kind: what it tells.
        t: when it began, in seconds since the epoch.
        ns: the same on the monotonic clock of the host.
        pid, process, thread: who wrote it; ``process`` is multiprocessing's name.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    t: FiniteFloat
    ns: int
    pid: int
    process: str
    thread: int

    def fields(self) -> dict[str, Any]:
        """What this record tells beyond what every record has."""
        return self.model_dump(exclude=set(Record.model_fields))


class Start(Record):
    """The first record of a file."""

    host: str
    argv: tuple[str, ...]
    versions: dict[str, str]


class ProcessName(Record):
    """What the process calls itself, once it knows: ``scheduler TP0``."""

    name: str


class Raised(BaseModel):
    """The exception that a hook call ended with, and the plugin that raised it where that is known."""

    plugin: str | None
    error: str


class HookCall(Record):
    """One hook call; ``plugins`` and ``results`` in the order of the calls. pluggy drops the results that are None."""

    hook: str
    arguments: dict[str, str]
    plugins: tuple[str, ...]
    results: tuple[str, ...]
    duration_ns: int
    raised: Raised | None = None


class Verdict(BaseModel):
    """What became of one candidate: its rank from 1, or None when it was rejected; and why."""

    model_config = ConfigDict(extra="allow", frozen=True)

    impl_id: str
    plugin: str
    rank: int | None
    reason: str


class Selected(Record):
    """The selection of one op."""

    op: str
    chosen: str | None
    rule: str
    verdicts: tuple[Verdict, ...]


class BoundRow(BaseModel):
    """How many layers of a class got an implementation."""

    model_config = ConfigDict(extra="allow", frozen=True)

    op: str
    layer_class: str
    implementation: str | None
    layers: int
    note: str | None = None


class Bound(Record):
    """What the layers of the loaded model are bound to."""

    rows: tuple[BoundRow, ...]


class AtenReplaced(Record):
    """The overloads of PyTorch's own ops that a distribution's functions have replaced."""

    distribution: str
    ops: tuple[str, ...]


class Settled(Record):
    """The communicator that the ranks of a group agreed on, why not a better one, and what decided the order."""

    group: str
    ranks: tuple[int, ...]
    communicator: str
    rule: str
    reason: str


class Collective(Record):
    """One collective of a group: by its communicator, or, where that is None, by SGLang's own, for a reason."""

    group: str
    collective: str
    communicator: str | None
    reason: str | None
    dtype: str
    bytes: int


class Quarantine(Record):
    """An implementation that failed on probation."""

    op: str
    implementation: str
    dtype: str
    device: str
    reason: str


class Call(Record):
    """One call of an implementation; ``layer`` is the layer's name in the model, where it has one."""

    op: str
    implementation: str
    layer_class: str
    layer: str | None
    shapes: dict[str, tuple[int | str, ...]]
    dtypes: dict[str, str]
    duration_ns: int
    raised: str | None = None


class Lost(Record):
    """How many records could not be written before this one."""

    records: int


_MODELS: Mapping[str, type[Record]] = {
    "start": Start,
    "process": ProcessName,
    "hook": HookCall,
    "select": Selected,
    "bound": Bound,
    "aten": AtenReplaced,
    "communicator": Settled,
    "collective": Collective,
    "quarantine": Quarantine,
    "call": Call,
    "lost": Lost,
}


@dataclass
class Damage:
    """What is wrong with a file: its last line is incomplete, and how many other lines cannot be read."""

    cut: bool = False
    unreadable: int = 0


def trace_files(paths: Iterable[Path]) -> list[Path]:
    """The files that ``paths`` name, those of a directory by name. Raises TraceError when one names none."""
    found = [file for path in paths for file in _files_of(path)]
    return list(dict.fromkeys(file.resolve() for file in found))


def read_records(path: Path, damage: Damage | None = None) -> Iterator[Record]:
    """The records of one file in the order of writing, and in ``damage`` what could not be read.

    Raises TraceError when the file cannot be opened or holds no trace.
    """
    damage = Damage() if damage is None else damage
    whole, line = 0, b""
    with _opened(path) as file:
        for line in file:
            record = _parse(line)
            if record is not None:
                whole += 1
                yield record
            elif not line.endswith(b"\n"):
                damage.cut = True
            elif line.strip():
                damage.unreadable += 1
    if not whole and (damage.unreadable or not BEGINNING.startswith(line[: len(BEGINNING)])):
        raise _no_trace(path, "a file of something else")


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl"))
    if not files:
        raise _no_trace(path, "a directory without a .jsonl file")
    return files


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise _no_trace(path, error.strerror or str(error)) from error


def _parse(line: bytes) -> Record | None:
    try:
        data = json.loads(line.decode())
        return _MODELS.get(data["kind"], Record).model_validate(data)
    except (ValueError, TypeError, KeyError, RecursionError):  # not JSON, not an object, or not a record
        return None


def _no_trace(path: Path, found: str) -> TraceError:
    return TraceError(
        "sglang-fl trace",
        asked=f"the trace in {path}",
        found=found,
        do="name a directory that SGLANG_FL_TRACE_DIR named, or files from it",
    )
