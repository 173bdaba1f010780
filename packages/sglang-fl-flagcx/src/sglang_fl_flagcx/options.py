"""What the user says about FlagCX: our own settings, and those of FlagCX's variables that change what we may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_fl import Setting

_MODES = {
    "flagcx_use_tuner": "FlagCX tries and times its algorithms; its collectives then stay out of device graphs",
    "flagcx_use_hetero_comm": "FlagCX's own algorithms on devices of one vendor, too; not in device graphs either",
}
_PATH, _KERNELS = "flagcx_path", "flagcx_custom_op_enable"

SETTINGS = (
    Setting(
        key=_PATH,
        type=Path | None,
        default=None,
        help="libflagcx.so, or its folder, or FlagCX's tree; null: an installed flagcx, else the loader's path",
        env="FLAGCX_PATH",
    ),
    *(Setting(key=key, type=bool, default=False, help=words, env=key.upper()) for key, words in _MODES.items()),
    Setting(
        key=_KERNELS,
        type=bool,
        default=False,
        help="FlagCX's all-reduce kernels, by the device's multicast: with them, FlagCX is not used",
        env=_KERNELS.upper(),
    ),
)


@dataclass(frozen=True)
class Options:
    """The settings as the communicator needs them.

    Attributes:
        path: where libflagcx is; None: in the usual places.
        modes: variables that FlagCX reads itself, from the environment alone, to be set for it.
        refusal: why these settings rule FlagCX out, or None.
    """

    path: Path | None
    modes: Mapping[str, str]
    refusal: str | None

    @classmethod
    def of(cls, of_backends: Mapping[str, Any]) -> Options:
        """From the settings of all backends, by key; where they could not be read, the defaults."""
        refusal = f"{_KERNELS.upper()} is set, and sglang-fl does not use the device's multicast"
        return cls(
            path=of_backends.get(_PATH),
            modes={key.upper(): "1" for key in _MODES if of_backends.get(key)},
            refusal=refusal if of_backends.get(_KERNELS) else None,
        )
