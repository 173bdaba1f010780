"""What FlagCX refuses."""

from __future__ import annotations

from sglang_fl import SglangFlError


class FlagCXError(SglangFlError):
    """A library that cannot be used, or a call of FlagCX's that failed, with FlagCX's own words."""
