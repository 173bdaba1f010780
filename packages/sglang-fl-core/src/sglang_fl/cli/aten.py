"""``sglang-fl explain --aten``: which of PyTorch's own ops the backends replace, and why not the others."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich.table import Table

from sglang_fl.cli.loading import aten_ops, quietly, start_and_note
from sglang_fl.cli.output import show, show_json, table
from sglang_fl.errors import DispatchError
from sglang_fl.plugins import CORE, Offer
from sglang_fl.records import AtenOp, without_namespace

Row = dict[str, Any]
"""An :class:`sglang_fl.AtenOp` in plain types, and the ``distribution`` whose it is."""


def explain_aten(op: str | None, as_json: bool) -> None:
    """Shows all ops that a backend can replace; or those that ``op`` names, as it would in the backend's settings."""
    quietly()  # a backend that refuses the settings is the answer
    session = start_and_note()
    offers = aten_ops(session)
    rows = [_row(offer) for offer in (offers if op is None else _named(op, offers))]
    if as_json:
        show_json({"platform": session.platform.name, "aten": rows})
    elif rows:
        show(_layout(rows, session.platform.name))
    else:
        show(f"No loaded backend can replace PyTorch's own ops on platform {session.platform.name}")


def _row(offer: Offer[AtenOp]) -> Row:
    plain = {field.name: getattr(offer.record, field.name) for field in fields(AtenOp)}
    return {**plain, "distribution": offer.plugin.distribution}


def _named(op: str, offers: Sequence[Offer[AtenOp]]) -> list[Offer[AtenOp]]:
    named = [offer for offer in offers if offer.record.covered_by(op)]
    if not named:
        near = difflib.get_close_matches(without_namespace(op), [offer.record.name for offer in offers], n=1)
        raise DispatchError(
            CORE,
            asked=f"the ATen op {op!r}",
            found="no loaded backend that can replace it",
            do=f"did you mean {near[0]!r}?" if near else "see all of them with `sglang-fl explain --aten`",
        )
    return named


def _layout(rows: Sequence[Row], platform: str) -> Table:
    columns = ("ATen op", "replaced", "by", "distribution", "reason")
    cells = ((r["name"], "yes" if r["replaced"] else "no", r["by"], r["distribution"], r["reason"]) for r in rows)
    count = sum(row["replaced"] for row in rows)
    title = f"PyTorch's own ops on platform {platform}: {count} of {len(rows)} that backends can replace are replaced"
    return table(title, columns, cells)
