"""The layer in a process: what it would replace, replacing it, and what it has replaced."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sglang_fl import SglangFlError
from sglang_fl_flaggems import availability

from .defects import silently_wrong, unexamined
from .plan import GemsOp, plan, unknown_defaults, wrong_and_wanted
from .record import Wrap, recorder
from .registration import as_it_is, has_op, own_rule, register, rows_of
from .settings import WHO, by_user, refuse_what_is_in_vain, suspended
from .table import PACKAGE, Table, installed_package, read_release, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from sglang_fl import Platform
    from sglang_fl.settings import Settings

logger = logging.getLogger(__name__)


def aten_ops(platform: Platform, settings: Settings) -> list[GemsOp]:
    """Every op that the installed FlagGems has a function for: as it is once the layer is active, or as it would be.

    Raises SglangFlError for settings that cannot be meant here.
    """
    rows = _asked(settings, platform.device_type).rows
    flag_gems = sys.modules.get(PACKAGE)
    is_active = getattr(flag_gems, "current_work_registrar", None) is not None
    return [as_it_is(row, flag_gems) for row in rows] if is_active else rows


def activate(platform: Platform, settings: Settings) -> None:
    """Replaces the ops that the settings choose, in this process, for good; nothing where the layer is off.

    Raises SglangFlError when it cannot be done as asked. What has been replaced by then stays replaced.
    """
    table, asked, release, wrong = _asked(settings, platform.device_type)
    _warn(suspended(settings))
    if not settings.of_backends["use_flaggems"]:
        return
    _warn(unexamined(release))
    _warn(unknown_defaults(table, settings))
    _warn(wrong_and_wanted(asked, wrong))
    flag_gems = _imported(table, settings)
    register({row.name for row in asked if row.replaced}, flag_gems, _wrap(settings))
    _refuse_differences(asked, flag_gems, is_by_name=by_user(settings, "flagos_whitelist"))


def _wrap(settings: Settings) -> Wrap | None:
    if not settings.of_backends["flaggems_record"]:
        return None
    return recorder(settings.of_backends["flaggems_log_path"], once=settings.of_backends["flaggems_log_once"])


class _Asked(NamedTuple):
    """What FlagGems has functions for, which of them are to be replaced, its release, and those that it gets wrong."""

    table: Table
    rows: list[GemsOp]
    release: str | None
    wrong: dict[str, str]


def _asked(settings: Settings, device_type: str) -> _Asked:
    """What the settings ask for on devices of torch's ``device_type``."""
    refuse_what_is_in_vain(settings)
    package = installed_package()
    if not settings.of_backends["use_flaggems"]:  # most workers
        table = {} if package is None else _readable(package)
        return _Asked(table, plan(table, settings, has_op), None, {})
    _require_flag_gems(settings, device_type)
    assert package is not None, "it is required"
    table, release = read_table(package), read_release(package)
    wrong = silently_wrong(release, device_type)
    return _Asked(table, plan(table, settings, has_op, wrong), release, wrong)


def _require_flag_gems(settings: Settings, device_type: str) -> None:
    obstacle = availability.obstacle()
    if obstacle is not None:
        raise _impossible(obstacle.found, settings, do=obstacle.do)
    answer = availability.own_kernels(device_type)
    if answer is not True:
        raise _impossible(str(answer), settings, do="serve on a device that torch and Triton find")


def _readable(package: Path) -> Table:
    """What can be read of a FlagGems that nobody asked for, whatever its release."""
    try:
        return read_table(package)
    except SglangFlError:
        return {}


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


def _impossible(found: str, settings: Settings, do: str = "mend what `sglang-fl doctor` finds") -> SglangFlError:
    return SglangFlError(
        WHO,
        asked=f"FlagGems in the place of PyTorch's own ops (use_flaggems, {settings.origin('use_flaggems')})",
        found=found,
        do=f"leave use_flaggems off, or {do}",
    )


def _refuse_differences(asked: Sequence[GemsOp], flag_gems: Any, *, is_by_name: bool) -> None:
    """FlagGems may leave something out by a rule of its own, unless the user named it."""
    differing = []
    for was in asked:
        now = as_it_is(was, flag_gems)
        if now.replaced != was.replaced and (is_by_name or now.replaced or own_rule(was.entry, flag_gems) is None):
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
