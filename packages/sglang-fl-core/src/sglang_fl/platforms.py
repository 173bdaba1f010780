"""Which platform this process runs on: the user's word, or the best that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sglang_fl.errors import PlatformError, nearest
from sglang_fl.plugins import Offer
from sglang_fl.records import Answer, Platform, refusal


def choose_platform(offers: Sequence[Offer[Platform]], name: str | None, said_by: str) -> Offer[Platform]:
    """The platform called ``name``, or else the available one of the highest priority.

    Raises PlatformError when there is none, when the named one is unknown or unavailable, or when two of the same
    priority are available and the user must say which.
    """
    asked = f"platform {name!r} ({said_by})" if name else "a platform"
    named = [offer for offer in offers if name in (None, offer.record.name)]
    if not named:
        known = sorted({offer.record.name for offer in offers})
        raise PlatformError("sglang-fl-core", asked=asked, found="no such platform", do=nearest(str(name), known))
    reasons = [unavailability(offer.record.is_available) for offer in named]
    there = [offer for offer, reason in zip(named, reasons, strict=True) if reason is None]
    if not there:
        told = "; ".join(f"{offer.record.name}: {reason}" for offer, reason in zip(named, reasons, strict=True))
        raise PlatformError("sglang-fl-core", asked=asked, found=f"not available ({told})", do="run `sglang-fl doctor`")
    best = max(offer.record.priority for offer in there)
    first, *others = sorted(
        (offer for offer in there if offer.record.priority == best), key=lambda offer: offer.record.name
    )
    if others:
        names = ", ".join(f"{offer.record.name} of {offer.plugin.distribution}" for offer in (first, *others))
        disable = f"disable a plugin with SGLANG_FL_DISABLED_PLUGINS, such as {others[0].plugin.name}"
        has_namesakes = any(offer.record.name == first.record.name for offer in others)
        raise PlatformError(
            "sglang-fl-core",
            asked=asked,
            found=f"several of priority {best}: {names}",
            do=disable if has_namesakes else f"name one with SGLANG_FL_PLATFORM, or {disable}",
        )
    return first


def unavailability(is_available: Callable[[], Answer]) -> str | None:
    """Why something says that it is not available, or None. An exception from it is such a reason."""
    try:
        return refusal(is_available())
    except (Exception, SystemExit) as error:  # an SDK may give up in its own way
        return f"asking raised {type(error).__name__}: {error}"
