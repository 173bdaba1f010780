"""Which of PyTorch's own ops the backends have replaced in this process: logged, and traced."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sglang_fl.plugins import Offer
from sglang_fl.records import AtenOp
from sglang_fl.tracing import Tracer

logger = logging.getLogger(__name__)


def report_aten_ops(offers: Iterable[Offer[AtenOp]], tracer: Tracer | None) -> None:
    """Says what each backend has replaced; nothing where there is nothing."""
    replaced: dict[str, list[str]] = {}
    for offer in offers:
        if offer.record.replaced:
            replaced.setdefault(offer.plugin.distribution, []).append(offer.record.name)
    for distribution, names in replaced.items():
        ops = ", ".join(sorted({name.partition(".")[0] for name in names}))
        logger.info("%s serves %d overloads of PyTorch's ATen ops: %s", distribution, len(names), ops)
        if tracer is not None:
            tracer.event("aten", distribution=distribution, ops=sorted(names))
