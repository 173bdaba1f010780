"""The layer's settings, and whether any of them was set in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_fl import Setting, SglangFlError

if TYPE_CHECKING:
    from sglang_fl.settings import Settings

WHO = "sglang-fl-flaggems"

SETTINGS = (
    Setting(
        key="use_flaggems",
        type=bool,
        default=False,
        env="USE_FLAGGEMS",
        help="replace PyTorch's own ops by FlagGems' in every model worker",
    ),
    Setting(
        key="flagos_whitelist",
        type=tuple[str, ...],
        default=(),
        excludes="flagos_blacklist",
        help="the only ops of PyTorch's own to replace; empty: all that FlagGems has",
    ),
    Setting(key="flagos_blacklist", type=tuple[str, ...], default=(), help="ops of PyTorch's own not to replace"),
    Setting(
        key="flaggems_record",
        type=bool,
        default=False,
        env="SGLANG_FLAGGEMS_RECORD",
        help="append a line to a file for each call of a replaced op",
    ),
    Setting(
        key="flaggems_log_path",
        type=Path | None,
        default=None,
        env="SGLANG_FLAGGEMS_LOG_PATH",
        help="that file; null: ~/.flaggems/oplist.log",
    ),
    Setting(
        key="flaggems_log_once",
        type=bool,
        default=True,
        env="SGLANG_FLAGGEMS_LOG_ONCE",
        help="a line for the first call only, of each op in each worker; false: for every call",
    ),
)

_DECLARED = {setting.key: setting for setting in SETTINGS}
_NEEDS = {
    "flagos_whitelist": "use_flaggems",
    "flagos_blacklist": "use_flaggems",
    "flaggems_record": "use_flaggems",
    "flaggems_log_path": "flaggems_record",
    "flaggems_log_once": "flaggems_record",
}
"""Setting -> the switch without which it has no effect."""


def by_user(settings: Settings, key: str) -> bool:
    """Whether ``key`` has its value from the environment or the YAML file, not from a default."""
    return settings.origin(key).kind in ("environment", "yaml")


def refuse_what_is_in_vain(settings: Settings) -> None:
    """Raises SglangFlError for a setting that the user made while the switch it needs is off, and not by the user."""
    for key, switch in _in_vain(settings):
        if not by_user(settings, switch):
            raise SglangFlError(
                WHO,
                asked=f"{key} ({settings.origin(key)})",
                found=f"that {switch} is off ({settings.origin(switch)})",
                do=f"set {_DECLARED[switch].variable}=1, or leave {key} out",
            )


def suspended(settings: Settings) -> Iterator[str]:
    """What the user has set, and switched off: a warning for each."""
    for key, switch in _in_vain(settings):
        if by_user(settings, switch):
            yield f"{key} ({settings.origin(key)}) has no effect: {switch} is off ({settings.origin(switch)})"


def _in_vain(settings: Settings) -> Iterator[tuple[str, str]]:
    values = settings.of_backends
    for key, switch in _NEEDS.items():
        if by_user(settings, key) and values[key] != _DECLARED[key].default and not values[switch]:
            yield key, switch
