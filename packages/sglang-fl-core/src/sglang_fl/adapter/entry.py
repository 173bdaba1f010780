"""The two functions that SGLang calls by entry point, in every process.

SGLang logs and swallows an ``Exception`` from either and goes on without us. What the user must know is therefore
raised as ``SystemExit``: it passes through, ends the process, and leaves one message.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from sglang_fl.errors import SglangFlError
from sglang_fl.settings import early_settings

T = TypeVar("T")


class Stop(SystemExit):
    """Ends the process with one message on stderr, and exit status 1."""

    def __init__(self, error: SglangFlError) -> None:
        super().__init__(f"sglang-fl: {error}")


def stopping(function: Callable[[], T]) -> Callable[[], T]:
    """``function``, with our own errors turned into :class:`Stop`."""

    @wraps(function)
    def guarded() -> T:
        try:
            return function()
        except SglangFlError as error:
            raise Stop(error) from error

    return guarded


@stopping
def activate_platform() -> str | None:
    """Entry point ``sglang.srt.platforms``: the platform class to load, or None to leave SGLang its own.

    SGLang calls it while it is itself being imported.
    """
    if not early_settings(os.environ).enabled:
        return None
    from sglang_fl.adapter.platform import selected_platform  # noqa: PLC0415 - imports parts of SGLang

    return selected_platform()


@stopping
def load_plugin() -> None:
    """Entry point ``sglang.srt.plugins``: registers the hooks. SGLang applies them when all plugins have run."""
    if not early_settings(os.environ).enabled:
        return
    from sglang_fl.adapter.hooks import register_hooks  # noqa: PLC0415 - imports parts of SGLang
    from sglang_fl.session import session  # noqa: PLC0415 - loads every backend

    register_hooks(session())
