"""The two functions that SGLang calls by entry point, in every process.

SGLang logs and swallows an ``Exception`` from either and goes on without us. What the user must know is therefore
raised as ``SystemExit``: it passes through, ends the process, and leaves one message.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sglang_fl.errors import SeamError, SglangFlError
from sglang_fl.settings import early_settings

P = ParamSpec("P")
T = TypeVar("T")


class Stop(SystemExit):
    """Ends the process with one message on stderr, and exit status 1."""

    def __init__(self, error: SglangFlError) -> None:
        super().__init__(f"sglang-fl: {error}")


def stopping(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, with its exceptions turned into :class:`Stop`."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except SglangFlError as error:
            raise Stop(error) from error
        except Exception as error:  # not one that we foresaw: an SGLang that is not what we take it for
            raise Stop(_unforeseen(function.__name__, error)) from error

    return guarded


def _unforeseen(name: str, error: Exception) -> SeamError:
    return SeamError(
        "sglang-fl-core",
        asked=f"{name}, which SGLang calls",
        found=f"{type(error).__name__}: {error}",
        do="run `sglang-fl doctor`, or leave SGLang untouched with SGLANG_FL_ENABLED=0",
    )


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
