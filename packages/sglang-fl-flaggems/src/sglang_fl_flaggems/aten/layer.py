"""The layer in a process: what it would replace, replacing it, and what it has replaced."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sglang_fl import AtenOp, SglangFlError
from sglang_fl_flaggems import availability

from .defects import silently_wrong
from .plan import plan, unknown_defaults, wrong_and_wanted
from .record import Wrap, recorder
from .registration import as_it_is, has_op, own_rule, register, rows_of
from .settings import WHO, by_user, refuse_what_is_in_vain, suspended
from .table import PACKAGE, Table, installed_package, read_release, read_table

if TYPE_CHECKING:
    from sglang_fl import Platform
    from sglang_fl.settings import Settings

logger = logging.getLogger(__name__)


def aten_ops(platform: Platform, settings: Settings) -> list[AtenOp]:
    """Every op that the installed FlagGems has a function for: as it is once the layer is active, or as it would be.

    Raises SglangFlError for settings that cannot be meant here.
    """
    table, rows, _ = _asked(platform, settings)
    flag_gems = sys.modules.get(PACKAGE)
    is_active = getattr(flag_gems, "current_work_registrar", None) is not None
    return [as_it_is(row, table[row.name], flag_gems) for row in rows] if is_active else rows


def activate(platform: Platform, settings: Settings) -> None:
    """Replaces the ops that the settings choose, in this process, for good; nothing where the layer is off.

    Raises SglangFlError when it cannot be done as asked. What has been replaced by then stays replaced.
    """
    table, asked, wrong = _asked(platform, settings)
    _warn(suspended(settings))
    if not settings.of_backends["use_flaggems"]:
        return
    _warn(unknown_defaults(table, settings))
    _warn(wrong_and_wanted(asked, wrong))
    flag_gems = _imported(table, settings)
    register({row.name for row in asked if row.replaced}, flag_gems, _wrap(settings))
    _refuse_differences(asked, table, flag_gems, is_by_name=by_user(settings, "flagos_whitelist"))


def _wrap(settings: Settings) -> Wrap | None:
    if not settings.of_backends["flaggems_record"]:
        return None
    return recorder(settings.of_backends["flaggems_log_path"], once=settings.of_backends["flaggems_log_once"])


def check(settings: Settings) -> None:
    """Raises SglangFlError for settings that no platform makes sense of; nothing is imported or replaced."""
    refuse_what_is_in_vain(settings)
    _planned(settings, device_type=None)


def _asked(platform: Platform, settings: Settings) -> _Planned:
    refuse_what_is_in_vain(settings)
    answer = availability.flag_gems(platform.device_type) if settings.of_backends["use_flaggems"] else True
    if answer is not True:
        raise _impossible(str(answer), settings)
    return _planned(settings, platform.device_type)


class _Planned(NamedTuple):
    """What FlagGems has functions for, which of them are to be replaced, and those that it gets wrong."""

    table: Table
    rows: list[AtenOp]
    wrong: dict[str, str]


def _planned(settings: Settings, device_type: str | None) -> _Planned:
    package = installed_package()
    table = {} if package is None else read_table(package)
    wrong: dict[str, str] = {}
    if package is not None and settings.of_backends["use_flaggems"]:  # every worker comes by here
        wrong = silently_wrong(read_release(package), device_type)
    return _Planned(table, plan(table, settings, has_op, wrong), wrong)


def _imported(table: Table, settings: Settings) -> Any:
    """FlagGems, imported. That takes seconds and starts the device."""
    try:
        flag_gems = importlib.import_module(PACKAGE)
    except Exception as error:  # a RuntimeError where it finds no device, and whatever its imports raise
        raise _impossible(f"{type(error).__name__}: {error}", settings) from error
    unread = {row[0] for row in rows_of(flag_gems)} ^ table.keys()
    if unread:
        raise _impossible(f"that its source does not tell all of its ops: {', '.join(sorted(unread))}", settings)
    return flag_gems


def _impossible(found: str, settings: Settings) -> SglangFlError:
    return SglangFlError(
        WHO,
        asked=f"FlagGems in the place of PyTorch's own ops (use_flaggems, {settings.origin('use_flaggems')})",
        found=found,
        do="leave use_flaggems off, or mend what `sglang-fl doctor` finds",
    )


def _refuse_differences(asked: Sequence[AtenOp], table: Table, flag_gems: Any, *, is_by_name: bool) -> None:
    """FlagGems may leave something out by a rule of its own, unless the user named it."""
    differing = []
    for was in asked:
        entry = table[was.name]
        now = as_it_is(was, entry, flag_gems)
        if now.replaced != was.replaced and (is_by_name or now.replaced or own_rule(entry, flag_gems) is None):
            differing.append(f"{now.name} ({now.reason})")
    if differing:
        raise SglangFlError(
            WHO,
            asked="PyTorch's ops replaced as `sglang-fl explain --aten` lists them",
            found=f"{len(differing)} otherwise: {', '.join(differing)}",
            do="name these ops in flagos_blacklist, or leave them out of flagos_whitelist",
        )


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        logger.warning("%s", text)
