"""The backend's hooks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sglang_fl import Communicator, Diagnosis, Platform, Setting, SglangFlError, hookimpl
from sglang_fl_flagcx.options import SETTINGS, Options

if TYPE_CHECKING:
    from sglang_fl.settings import Settings
    from sglang_fl_flagcx.communicator import FlagCX, Group
    from sglang_fl_flagcx.library import Library

_DEVICE_TYPES = frozenset({"cuda", "npu", "musa", "mlu"})
"""Devices that FlagCX serves and whose torch streams give their native handle."""


@hookimpl
def sglang_fl_register_settings() -> Sequence[Setting]:
    return SETTINGS


@hookimpl
def sglang_fl_register_communicators(platform: Platform, settings: Settings) -> list[Communicator]:
    if platform.device_type not in _DEVICE_TYPES:
        return []
    options = Options.of(settings.of_backends)
    return [Communicator(name="flagcx", create=partial(_create, options), is_available=partial(_is_available, options))]


@hookimpl
def sglang_fl_diagnose(settings: Settings) -> list[Diagnosis]:
    options = Options.of(settings.of_backends)
    try:
        library = _load(options)
    except SglangFlError as error:
        ok = None if options.path is None else False  # a machine need not have it; what the user names must be there
        return [Diagnosis(subject="FlagCX", ok=ok, found=error.found, wanted=error.asked, remedy=error.do)]
    return [Diagnosis(subject="FlagCX", ok=True, found=f"{library.version}, {library.file}")]


def _is_available(options: Options) -> bool | str:
    try:
        _load(options)
    except SglangFlError as error:
        return f"{error.asked}: found {error.found}"
    return True if options.refusal is None else options.refusal


def _create(options: Options, group: Group) -> FlagCX:
    from sglang_fl_flagcx.communicator import create  # noqa: PLC0415 - imports torch

    return create(options, group)


def _load(options: Options) -> Library:
    from sglang_fl_flagcx.library import Library  # noqa: PLC0415 - imports torch, then FlagCX's library

    return Library.load(options.path)
