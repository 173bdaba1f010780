"""Which communicator a group should get, and why: a pure function of the records, the platform and the settings.

What each group does get, its ranks agree on when it is made: see :mod:`sglang_fl.communication.agreement`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sglang_fl.errors import PluginError
from sglang_fl.platforms import unavailability
from sglang_fl.plugins import Offer, Plugins
from sglang_fl.policy import SelectionPolicy
from sglang_fl.records import BackendPriority, Communicator, Platform
from sglang_fl.settings import Settings


@dataclass(frozen=True)
class CommunicatorVerdict:
    """What became of one communicator.

    Attributes:
        name: what settings call it.
        record: None for SGLang's own.
        distribution: the one that it came in.
        standing: why it has its place.
        rejected: the setting that rejects it, or None.
        unavailable: why it cannot serve in this process, or None. It keeps its place in the order: the other ranks of
            a group must hear why it cannot be.
    """

    name: str
    record: Communicator | None
    distribution: str
    standing: str
    rejected: str | None = None
    unavailable: str | None = None

    @property
    def priority(self) -> int:
        """The record's, or that of SGLang's own."""
        return int(BackendPriority.REFERENCE) if self.record is None else self.record.priority

    @property
    def refused(self) -> str | None:
        """Why it cannot serve here, or None."""
        return self.rejected or (self.unavailable and f"not available: {self.unavailable}")


@dataclass(frozen=True)
class CommunicatorSelection:
    """Every communicator with its verdict: those that no setting rejects, best first, and then the rejected.

    Attributes:
        rule: what decided the order.
        asked: the one that the user names, if any.
        strict: no fallback.
        wish: what the user set, as a text that is equal in ranks whose users want the same.
    """

    verdicts: tuple[CommunicatorVerdict, ...]
    rule: str
    asked: str | None
    strict: bool
    wish: str

    @property
    def order(self) -> tuple[CommunicatorVerdict, ...]:
        """What no setting rejects, best first, whether or not it is available in this process."""
        return tuple(verdict for verdict in self.verdicts if verdict.rejected is None)

    @property
    def contenders(self) -> tuple[CommunicatorVerdict, ...]:
        """What goes before SGLang's own: where there is nothing, SGLang's groups are left alone."""
        return tuple(itertools.takewhile(lambda verdict: verdict.record is not None, self.order))

    def as_dict(self) -> dict[str, Any]:
        """The selection as this process sees it, in plain types: a group's other ranks may think otherwise."""
        ranked = [verdict.name for verdict in self.verdicts if verdict.refused is None]
        return {
            "chosen": ranked[0] if ranked else None,
            "rule": self.rule,
            "verdicts": [
                {
                    "communicator": verdict.name,
                    "vendor": verdict.record and verdict.record.vendor,
                    "priority": verdict.priority,
                    "distribution": verdict.distribution,
                    "rank": ranked.index(verdict.name) + 1 if verdict.name in ranked else None,
                    "reason": verdict.refused or verdict.standing,
                }
                for verdict in self.verdicts
            ],
        }


def own_backend(platform: Platform) -> str:
    """The backend of SGLang's own collectives: what settings call them by."""
    if not platform.in_tree:
        return platform.distributed_backend
    defaults = torch.distributed.Backend.default_device_backend_map  # SGLang is in charge, and takes torch's default
    return str(defaults.get(platform.device_type, platform.distributed_backend))


def collect_communicators(plugins: Plugins, platform: Platform, settings: Settings) -> tuple[Offer[Communicator], ...]:
    """Asks every plugin for its communicators on ``platform``.

    A plugin that offers one by the name of SGLang's own is left out. Raises PluginError when two plugins offer one of
    the same name: neither is more right than the other, so the user must choose.
    """
    hook = "sglang_fl_register_communicators"
    offers = plugins.collect(hook, Communicator, platform=platform, settings=settings)
    own = own_backend(platform)
    for offer in offers:
        if offer.record.name == own:
            plugins.leave_out(offer.plugin, f"a communicator {own!r}", "that is what SGLang's own is called")
    offers = [offer for offer in offers if offer.plugin.problem is None]
    _refuse_duplicates(offers)
    return tuple(offers)


def select_communicator(
    offers: Iterable[Offer[Communicator]], platform: Platform, settings: Settings
) -> CommunicatorSelection:
    """Ranks ``offers`` and SGLang's own: first what the user names, then by priority, then by name.

    SGLang's own has the reference's priority, and goes first among equals.
    """
    asked = settings.communicator
    offered = [_verdict(offer.record.name, offer.record, offer.plugin.distribution, settings) for offer in offers]
    verdicts = [_verdict(own_backend(platform), None, "sglang", settings), *offered]
    return CommunicatorSelection(
        verdicts=tuple(sorted(verdicts, key=lambda verdict: _sort_key(verdict, asked))),
        rule=f"communicator {asked} from {settings.origin('communicator')}" if asked else "declared priority",
        asked=asked,
        strict=settings.strict,
        wish=_wish(settings),
    )


def vendor_rejection(vendor: str | None, policy: SelectionPolicy) -> str | None:
    """Why the settings keep ``vendor`` out, or None."""
    if vendor is not None and vendor in policy.deny_vendors:
        return f"vendor {vendor} is denied by {policy.source('deny_vendors')}"
    if vendor is not None and policy.allow_vendors is not None and vendor not in policy.allow_vendors:
        return f"vendor {vendor} is not among those allowed by {policy.source('allow_vendors')}"
    return None


def _refuse_duplicates(offers: Sequence[Offer[Communicator]]) -> None:
    first: dict[str, Offer[Communicator]] = {}
    for offer in offers:
        other = first.setdefault(offer.record.name, offer)
        if other is not offer:
            raise PluginError(
                f"{other.plugin} and {offer.plugin}",
                asked=f"one communicator {offer.record.name!r}",
                found="both offer it",
                do=f"uninstall one of them, or set SGLANG_FL_DISABLED_PLUGINS={offer.plugin.name}",
            )


def _verdict(name: str, record: Communicator | None, distribution: str, settings: Settings) -> CommunicatorVerdict:
    rejected = _rejection(name, record, settings)
    # Whoever is rejected is not even asked.
    unavailable = None if record is None or rejected else unavailability(record.is_available)
    return CommunicatorVerdict(name, record, distribution, _standing(name, record, settings), rejected, unavailable)


def _rejection(name: str, record: Communicator | None, settings: Settings) -> str | None:
    if settings.strict and settings.communicator not in (None, name):
        return f"strict ({settings.origin('strict')}), and {settings.origin('communicator')} names another"
    return None if record is None else vendor_rejection(record.vendor, SelectionPolicy.of(settings))


def _standing(name: str, record: Communicator | None, settings: Settings) -> str:
    if name == settings.communicator:
        return f"named by {settings.origin('communicator')}"
    return "SGLang's own" if record is None else f"priority {record.priority}"


def _sort_key(verdict: CommunicatorVerdict, asked: str | None) -> tuple[bool, bool, int, bool, str]:
    last, own = verdict.rejected is not None, verdict.record is None
    return last, verdict.name != asked, -verdict.priority, not own, verdict.name


def _wish(settings: Settings) -> str:
    allowed = "every vendor" if settings.allow_vendors is None else f"only {', '.join(sorted(settings.allow_vendors))}"
    denied = ", ".join(sorted(settings.deny_vendors)) or "none"
    return f"communicator {settings.communicator}, strict {settings.strict}, allowed {allowed}, denied {denied}"
