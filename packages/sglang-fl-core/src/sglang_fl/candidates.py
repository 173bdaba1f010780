"""The op implementations that the plugins offer for a platform, checked, each with whether it can serve here."""

from __future__ import annotations

from collections import Counter

from sglang_fl.errors import PluginError, nearest
from sglang_fl.ops import CONTRACTS
from sglang_fl.platforms import unavailability
from sglang_fl.plugins import Offer, Plugins
from sglang_fl.ranking import Candidate
from sglang_fl.records import OpImpl, Platform


def collect_candidates(plugins: Plugins, platform: Platform) -> tuple[Candidate, ...]:
    """Asks every plugin for its ops on ``platform``.

    A plugin whose records contradict each other or an op's contract is left out. Raises PluginError when two
    distributions offer one (op, impl_id): neither is more right than the other, so the user must choose.
    """
    offers = plugins.collect("sglang_fl_register_ops", OpImpl, platform=platform)
    for plugin in {id(offer.plugin): offer.plugin for offer in offers}.values():
        wrong = _contradiction([offer.record for offer in offers if offer.plugin is plugin])
        if wrong is not None:
            plugins.leave_out(plugin, *wrong)
    offers = [offer for offer in offers if offer.plugin.problem is None]
    _refuse_duplicates(offers)
    return tuple(
        Candidate(offer.record, offer.plugin.name, offer.plugin.distribution, unavailability(offer.record.is_available))
        for offer in offers
    )


def _contradiction(impls: list[OpImpl]) -> tuple[str, str] | None:
    """What a plugin asked for, and why that cannot be, if anything is wrong."""
    for impl in impls:
        if impl.op not in CONTRACTS:
            return f"the op {impl.op!r} ({impl.impl_id})", f"no such op; {nearest(impl.op, CONTRACTS)}"
        allowed = CONTRACTS[impl.op].overwritable
        foreign = [name for name in impl.mutates if name not in allowed]
        if foreign:
            return (
                f"overwriting {foreign[0]!r} in {impl.op} ({impl.impl_id})",
                f"it may only overwrite {', '.join(allowed)}" if allowed else "it may overwrite nothing",
            )
    counts = Counter((impl.op, impl.impl_id) for impl in impls)
    twice = next((key for key, count in counts.items() if count > 1), None)
    return None if twice is None else (f"one implementation {twice[1]!r} of {twice[0]}", "several")


def _refuse_duplicates(offers: list[Offer[OpImpl]]) -> None:
    first: dict[tuple[str, str], Offer[OpImpl]] = {}
    for offer in offers:
        key = (offer.record.op, offer.record.impl_id)
        other = first.setdefault(key, offer)
        if other is not offer:
            raise PluginError(
                f"{other.plugin} and {offer.plugin}",
                asked=f"one implementation {key[1]!r} of {key[0]}",
                found="both offer it",
                do=f"uninstall one of them, or set SGLANG_FL_DISABLED_PLUGINS={offer.plugin.name}",
            )
