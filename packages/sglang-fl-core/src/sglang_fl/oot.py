"""Which of SGLang's layers are left to SGLang: by the user, all of them or by a list, or because it is faster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sglang_fl.layers import LAYERS, SUBCLASSES
from sglang_fl.ranking import Selection
from sglang_fl.records import BackendImplKind, Platform
from sglang_fl.settings import Settings


def left_by_user(names: Iterable[str], settings: Settings) -> str | None:
    """The setting that leaves a layer to SGLang, or None. ``names`` are its op, its class and the bases of that."""
    names = set(names)
    for switch in ("enabled", "oot_enabled"):
        if not getattr(settings, switch):
            return f"{switch} is off ({settings.origin(switch)})"
    if not names.isdisjoint(settings.oot_blacklist):
        return f"oot_blacklist ({settings.origin('oot_blacklist')})"
    if settings.oot_whitelist and names.isdisjoint(settings.oot_whitelist):
        return f"not in oot_whitelist ({settings.origin('oot_whitelist')})"
    return None


def left_to_kernels(selection: Selection, platform: Platform) -> str | None:
    """Why SGLang's own kernels go before the implementation that is selected, or None.

    On a device that SGLang serves by itself, the reference ops would only slow it down: the user has to ask for them.
    """
    best = selection.ranked[0].impl if selection.ranked else None
    if best is None or best.kind is not BackendImplKind.REFERENCE or selection.asked or not platform.in_tree:
        return None
    return f"its own kernels go before the reference ops on {platform.name}, unless SGLANG_FL_PREFER=reference"


def layers_of(op: str, settings: Settings) -> Iterator[tuple[str, str | None]]:
    """The layer classes that ``op`` can serve, each with the setting that leaves it to SGLang, if one does."""
    for name, ops in LAYERS.items():
        if op in ops:
            yield name, left_by_user({op, name}, settings)
            for subclass in SUBCLASSES.get(name, ()):
                yield subclass, left_by_user({op, name, subclass}, settings)
