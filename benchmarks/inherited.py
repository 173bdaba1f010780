"""What a process that is measured has of this one's environment."""

from __future__ import annotations

import os

_CHOOSING = ("SGLANG_FL_", "SGLANG_FLAGGEMS_", "USE_FLAGGEMS", "SGLANG_PLUGINS", "SGLANG_PLATFORM")


def inherited() -> dict[str, str]:
    """All but the variables that choose who serves: that is the benchmark's to say."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_CHOOSING)}
