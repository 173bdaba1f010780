"""The backend's hooks."""

from __future__ import annotations

from sglang_fl import Diagnosis, hookimpl


@hookimpl
def sglang_fl_diagnose() -> list[Diagnosis]:
    return []
