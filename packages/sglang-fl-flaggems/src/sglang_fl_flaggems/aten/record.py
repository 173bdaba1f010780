"""A file with a line for each call of a replaced op.

FlagGems can write one itself, but each worker would begin the file anew, calls that replace nothing would be in it,
some of its functions for Hopper would not, and its warnings would reach no log any more.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sglang_fl import SglangFlError

from .settings import WHO

Wrap = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Gives a function for an op in another one's place, from the op's key and that one."""


def recorder(path: Path | None, *, once: bool) -> Wrap:
    """What makes a function append a line to ``path`` when it is called; with ``once``, for the first call of an op.

    Each line is one write to a file opened for appending, so that workers share it. Without a path it is where
    FlagGems has it. Raises SglangFlError for a file that cannot be written.
    """
    file = _opened(path or Path.home() / ".flaggems" / "oplist.log")
    seen: set[str] = set()

    def recorded(key: str, function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{function.__module__}.{function.__name__}"

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if key not in seen:
                if once:
                    seen.add(key)
                file.handle(logging.LogRecord(name, logging.DEBUG, "", 0, f"aten::{key}", None, None))
            return function(*args, **kwargs)

        return call

    return recorded


def _opened(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="a", encoding="utf-8")  # a full disk stops no call
    except OSError as error:
        raise SglangFlError(
            WHO,
            asked=f"a record of calls in {path} (flaggems_log_path)",
            found=error.strerror or str(error),
            do="name a file that the workers can write, or leave flaggems_record off",
        ) from error
    file.setFormatter(logging.Formatter("[%(levelname)s] %(name)s: %(message)s"))
    return file
