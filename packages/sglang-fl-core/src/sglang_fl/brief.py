"""Short texts for arbitrary values."""

from __future__ import annotations

import reprlib
from typing import Any

LONGEST = 2000


def brief(value: object) -> str:
    """``value`` in at most 2000 characters. Never raises, whatever a plugin hands in, and reads no tensor's values."""
    try:
        text = _BRIEF.repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


class _Brief(reprlib.Repr):
    """``reprlib`` picks the method by the name of the value's type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 40
        self.maxstring = self.maxother = 160

    def repr_OpImpl(self, impl: Any, level: int) -> str:
        return f"{impl.op}/{impl.impl_id}"

    def repr_Platform(self, platform: Any, level: int) -> str:
        return f"Platform({platform.name})"

    def repr_Communicator(self, communicator: Any, level: int) -> str:
        return f"Communicator({communicator.name})"

    def repr_Setting(self, setting: Any, level: int) -> str:
        return f"Setting({setting.key})"

    def repr_Settings(self, settings: Any, level: int) -> str:
        return f"Settings({', '.join(key for key, origin in settings.origins.items() if origin.kind != 'code')})"

    def repr_AtenOp(self, op: Any, level: int) -> str:
        return op.name if op.replaced else f"not {op.name}"

    def repr_Diagnosis(self, diagnosis: Any, level: int) -> str:
        return f"Diagnosis({diagnosis.subject}: {diagnosis.found})"

    def repr_Tensor(self, tensor: Any, level: int) -> str:
        return f"Tensor({list(tensor.shape)}, {tensor.dtype})"

    def repr_Parameter(self, parameter: Any, level: int) -> str:
        return self.repr_Tensor(parameter, level)


_BRIEF = _Brief()
