"""This process's file of trace records: JSON lines, appended one ``write`` each.

A killed process loses at most the line that it was writing. A forked child gets a file of its own.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sglang_fl.brief import brief

logger = logging.getLogger(__name__)

Fields = Mapping[str, Any]


class TraceFile:
    """Appends records to ``<directory>/<process>-<pid>.jsonl``. Threads may share it, and so may forked children.

    Args:
        directory: where the file goes; made when it does not exist.
        first: the fields of the ``start`` record, asked for in every process that opens a file.

    Raises OSError when the file cannot be opened. Afterwards nothing raises: what cannot be written is counted,
    reported on the log once, and told in a ``lost`` record as soon as writing works again.
    """

    _fd: int | None
    _lost: int  # records since the last that could be written

    def __init__(self, directory: Path, first: Callable[[], Fields]) -> None:
        self._directory = directory.absolute()  # a server may change its working directory
        self._first = first
        # Taken once, so that a step of the clock cannot reorder this process's records.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._begin()
        self._open()
        begin_again = weakref.WeakMethod(self._begin_again)
        os.register_at_fork(after_in_child=lambda: (method := begin_again()) and method())

    def write(self, kind: str, fields: Fields, ns: int | None = None) -> None:
        """Appends one record. ``ns`` is when it began, on the monotonic clock; now when None."""
        try:
            with self._lock:
                if self._fd is None:
                    self._open()
                if self._lost:
                    self._append(self._line("lost", {"records": self._lost}))
                    self._lost = 0
                self._append(self._line(kind, fields, ns))
        except OSError as error:
            self._lose(error)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal handler may call an op while one is being recorded
        self._fd = None
        self._torn = False
        self._lost = 0
        self._reported = False

    def _begin_again(self) -> None:
        """In a forked child: its parent's other threads, which may hold the lock, are not here."""
        self._close()
        self._begin()

    def _open(self) -> None:
        # The name is read here and not at the fork: multiprocessing names a forked child only after it.
        self._process, self._pid = multiprocessing.current_process().name, os.getpid()
        self._directory.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]", "_", self._process)
        self._fd = os.open(self._directory / f"{name}-{self._pid}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._close = weakref.finalize(self, os.close, self._fd)
        self._close.atexit = False  # other exit handlers may still write
        self._append(self._line("start", self._first()))

    def _line(self, kind: str, fields: Fields, ns: int | None = None) -> bytes:
        ns = time.monotonic_ns() if ns is None else ns
        header = {
            "kind": kind,
            "t": round((self._epoch_ns + ns) / 1e9, 6),
            "ns": ns,
            "pid": self._pid,
            "process": self._process,
            "thread": threading.get_native_id(),
        }
        try:
            text = _ENCODER.encode({**header, **fields, **header})
        except (TypeError, ValueError, RecursionError):  # a key that is no string, a NaN, a cycle
            text = _ENCODER.encode({**header, "unreadable": brief(fields)})
        return f"{text}\n".encode(errors="replace")  # half a surrogate pair is no text for whoever reads it

    def _append(self, line: bytes) -> None:
        rest = memoryview(b"\n" + line if self._torn else line)
        self._torn = True
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]  # type: ignore[arg-type] # a nearly full disk takes a part
        except OSError:
            if bytes(rest) != b"\n":  # without its newline it is whole, and the next record brings that
                raise
        else:
            self._torn = False

    def _lose(self, error: OSError) -> None:
        self._lost += 1
        if not self._reported:
            self._reported = True
            logger.error("cannot write the trace in %s, serving goes on without it: %s", self._directory, error)


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=brief)
