"""Do the names in the settings exist? Their form is checked where they are read; this needs the plugins."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable, Sequence

from sglang_fl.communication.selection import own_backend, vendor_rejection
from sglang_fl.errors import SettingsError, nearest
from sglang_fl.hookspecs import PROJECT
from sglang_fl.layers import LAYER_NAMES
from sglang_fl.ops import CONTRACTS
from sglang_fl.plugins import REFERENCE, Offer
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
        _refuse_to_disable_the_reference(settings)
        installed = {entry_point.name for entry_point in importlib.metadata.entry_points(group=PROJECT)}
        _known(settings, "disabled_plugins", "plugin", settings.disabled_plugins, installed)
    _known(settings, "allow_vendors", "vendor", settings.allow_vendors or (), vendors)
    _known(settings, "deny_vendors", "vendor", settings.deny_vendors, vendors)
    _known(settings, "oot_blacklist", "layer class or op", settings.oot_blacklist, layers)
    _known(settings, "oot_whitelist", "layer class or op", settings.oot_whitelist, layers)
    _known(settings, "op_backends", "op", settings.op_backends, CONTRACTS)
    for op, tokens in settings.op_backends.items():
        impls = [candidate.impl for candidate in candidates if candidate.impl.op == op]
        offered_for = {
            "vendor": ("vendor", {impl.vendor for impl in impls if impl.vendor}),
            "impl": ("implementation", {impl.impl_id for impl in impls}),
        }
        for kind, name in (token.split(":", 1) for token in tokens if ":" in token):
            what, valid = offered_for[kind]
            _known(settings, "op_backends", f"{what} of {op}", [name], valid)
    _check_dispatch_log(settings)
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


def _refuse_to_disable_the_reference(settings: Settings) -> None:
    if REFERENCE in settings.disabled_plugins:
        raise SettingsError(
            f"setting disabled_plugins ({settings.origin('disabled_plugins')})",
            asked=f"to do without the plugin {REFERENCE!r}",
            found="that it is core's own, and always loaded",
            do="leave it out of the list; SGLANG_FL_OOT_ENABLED=0 leaves all layers to SGLang, and op_backends orders",
        )


def _check_dispatch_log(settings: Settings) -> None:
    """Now, not in the worker whose model has loaded."""
    log = settings.dispatch_log
    if log is not None and (log.is_dir() or not os.access(log if log.exists() else log.absolute().parent, os.W_OK)):
        raise SettingsError(
            f"setting dispatch_log ({settings.origin('dispatch_log')})",
            asked=f"to write to {log.absolute()}",
            found="a folder" if log.is_dir() else "no such folder, or one that may not be written to",
            do="name a file in a folder that is there",
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
