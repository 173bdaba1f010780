"""SGLang's own environment variables that would keep it from using us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sglang_fl.records import Diagnosis, Platform
from sglang_fl.settings import Settings

OURS = "sglang_fl"
"""Our entry points' name, in both of SGLang's groups."""


def check_variables(environ: Mapping[str, str], settings: Settings, platform: Platform | None) -> Iterator[Diagnosis]:
    """A failed line for each variable that disables us. ``platform`` is None where none could be chosen."""
    yield from _plugins(environ.get("SGLANG_PLUGINS", ""))
    yield from _platform(environ.get("SGLANG_PLATFORM", ""), platform)
    if environ.get("SGLANG_USE_CPU_ENGINE") == "1":
        yield _unset("SGLANG_USE_CPU_ENGINE", "1: SGLang then needs another build of sgl_kernel than sglang-kernel's")
    if "SGLANG_FORCE_FUSED_OP_BACKEND" in environ and settings.oot_enabled:
        found = f"{environ['SGLANG_FORCE_FUSED_OP_BACKEND']!r}, which goes before every implementation of ours"
        yield _unset("SGLANG_FORCE_FUSED_OP_BACKEND", found)
    if not settings.enabled:
        yield _unset("SGLANG_FL_ENABLED", "off: SGLang runs without sglang-fl")


def _plugins(allowed: str) -> Iterator[Diagnosis]:
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    if allowed and OURS not in names:
        yield Diagnosis(
            subject="SGLANG_PLUGINS",
            ok=False,
            found=f"{allowed!r}: SGLang loads nothing else",
            wanted=f"{OURS} among them, or unset",
            remedy=f"export SGLANG_PLUGINS={','.join([*names, OURS])}",
        )


def _platform(name: str, platform: Platform | None) -> Iterator[Diagnosis]:
    if name not in ("", OURS):
        yield _unset("SGLANG_PLATFORM", f"{name!r}: SGLang takes that platform, and leaves our hooks out with ours")
    elif name and platform is not None and platform.in_tree:
        yield _unset("SGLANG_PLATFORM", f"{name!r}: but for {platform.name} SGLang has its own, and would not start")


def _unset(variable: str, found: str) -> Diagnosis:
    return Diagnosis(subject=variable, ok=False, found=found, wanted="unset", remedy=f"unset {variable}")
