"""Do the names in the settings exist? Their form is checked where they are read; this needs the plugins."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence

from sglang_fl.communication.selection import own_backend, vendor_rejection
from sglang_fl.errors import SettingsError, nearest
from sglang_fl.hookspecs import PROJECT
from sglang_fl.layers import LAYER_NAMES
from sglang_fl.ops import CONTRACTS
from sglang_fl.plugins import Offer
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import Communicator, Platform
from sglang_fl.settings import Settings


def validate(
    settings: Settings,
    platform: Platform,
    candidates: Sequence[Candidate],
    communicators: Sequence[Offer[Communicator]],
) -> None:
    """Raises SettingsError for the first name in the settings that means nothing on this machine."""
    offered = (*(candidate.impl.vendor for candidate in candidates), *(offer.record.vendor for offer in communicators))
    vendors = {vendor for vendor in offered if vendor}
    layers = (*LAYER_NAMES, *CONTRACTS)
    if settings.disabled_plugins:  # looking through all that is installed takes a while
        installed = {entry_point.name for entry_point in importlib.metadata.entry_points(group=PROJECT)}
        _known(settings, "disabled_plugins", "plugin", settings.disabled_plugins, installed)
    _known(settings, "allow_vendors", "vendor", settings.allow_vendors or (), vendors)
    _known(settings, "deny_vendors", "vendor", settings.deny_vendors, vendors)
    _known(settings, "oot_blacklist", "layer class or op", settings.oot_blacklist, layers)
    _known(settings, "oot_whitelist", "layer class or op", settings.oot_whitelist, layers)
    _known(settings, "op_backends", "op", settings.op_backends, CONTRACTS)
    for op, tokens in settings.op_backends.items():
        ids = {candidate.impl.impl_id for candidate in candidates if candidate.impl.op == op}
        named = [token.partition(":") for token in tokens if ":" in token]
        _known(settings, "op_backends", "vendor", [name for kind, _, name in named if kind == "vendor"], vendors)
        _known(
            settings, "op_backends", f"implementation of {op}", [name for kind, _, name in named if kind == "impl"], ids
        )
    _check_communicator(settings, platform, communicators)


def _known(settings: Settings, key: str, what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in valid:
            raise SettingsError(
                f"setting {key} ({settings.origin(key)})",
                asked=f"the {what} {name!r}",
                found=f"no such {what} on this machine",
                do=nearest(name, valid),
            )


def _check_communicator(settings: Settings, platform: Platform, communicators: Sequence[Offer[Communicator]]) -> None:
    if settings.communicator is None:
        return
    records = {offer.record.name: offer.record for offer in communicators}
    names = {own_backend(platform), *records}
    who, asked = (
        f"setting communicator ({settings.origin('communicator')})",
        f"the communicator {settings.communicator!r}",
    )
    if settings.communicator not in names:
        do = nearest(settings.communicator, names)
        raise SettingsError(who, asked=asked, found=f"no such communicator on platform {platform.name}", do=do)
    vendor = records[settings.communicator].vendor if settings.communicator in records else None
    rejection = vendor_rejection(vendor, SelectionPolicy.of(settings))
    if rejection is not None:
        raise SettingsError(who, asked=asked, found=rejection, do="drop one of the two settings")
