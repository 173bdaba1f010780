"""What can go wrong, said in one shape: who, what was asked, what was found, what to do.

    SglangFlError
    ├── SettingsError       a setting that means nothing here
    ├── PluginError         a plugin or a record of it that cannot be used
    ├── PlatformError       no platform, or not the one asked for
    ├── SeamError           SGLang lacks what the adapter hooks
    ├── DispatchError       an op that no implementation may serve
    │   └── ContractError   an implementation answered outside its op's contract
    ├── CommunicatorError   ranks that cannot agree, or are out of step (communication/collectives.py)
    └── TraceError          what was given is not a trace (trace_records.py)

Everything here is an ordinary exception. SGLang logs and swallows ordinary exceptions of its plugins, so
the adapter's entry points turn these into ``SystemExit`` (see ``adapter/entry.py``), and nobody else does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SglangFlError(Exception):
    """One failure, told to a person.

    Args:
        who: the part that speaks, with its distribution where it has one.
        asked: what was asked of it, and by which setting or caller.
        found: what it met instead.
        do: what the reader can do about it.
    """

    def __init__(self, who: str, *, asked: str, found: str, do: str) -> None:
        super().__init__(who, asked, found, do)
        self.who, self.asked, self.found, self.do = who, asked, found, do

    def __str__(self) -> str:
        return f"{self.who}: asked for {self.asked}; found {self.found}. To do: {self.do}"

    def __reduce__(self) -> tuple[object, ...]:
        # SGLang passes exceptions between processes; keyword-only arguments do not survive the default.
        return (_rebuild, (type(self), self.who, self.asked, self.found, self.do))


class SettingsError(SglangFlError):
    """A setting that is unknown, ill-formed or at odds with another."""


class PluginError(SglangFlError):
    """A plugin that failed, or offered something that is not a usable record."""


class PlatformError(SglangFlError):
    """No platform is available, or the one asked for is not."""


class SeamError(SglangFlError):
    """SGLang does not have a name or a signature that the adapter stands on."""


class DispatchError(SglangFlError):
    """No implementation may serve an op."""


class ContractError(DispatchError):
    """An implementation returned something that its op's contract does not allow."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt ``name``: its nearest valid name, or all of them when none is near."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"use one of: {', '.join(choices)}" if choices else "nothing is offered here"


def _rebuild(cls: type[SglangFlError], who: str, asked: str, found: str, do: str) -> SglangFlError:
    return cls(who, asked=asked, found=found, do=do)
