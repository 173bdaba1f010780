"""After a model has loaded: binds what is not bound yet, checks that our hooks took, and says what serves what."""

from __future__ import annotations

import logging
import pkgutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import setproctitle
import torch
from sglang.srt.plugins.hook_registry import HookRegistry

from sglang_fl.adapter import seams
from sglang_fl.adapter.binding import Binder, Binding, Deferred, bridge_of
from sglang_fl.adapter.bridges import fused_activations
from sglang_fl.adapter.bridges.base import FUSED
from sglang_fl.dispatch import Dispatcher
from sglang_fl.errors import SeamError
from sglang_fl.layers import OWN
from sglang_fl.plugins import CORE
from sglang_fl.session import Session

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """Layers of one class with one fate: what serves them, of which kind, how many they are, why, and
    whether it is meant so."""

    op: str
    layer_class: str
    implementation: str
    kind: str
    layers: int
    note: str
    meant: bool


def check_and_report(model: torch.nn.Module, session: Session, binder: Binder) -> None:
    """Binds the model's layers, logs the table, and raises SeamError, when strict, for an op that serves nothing."""
    rows = summarize(_bind_layers(model, binder, enabled=session.settings.oot_enabled), session.dispatcher)
    logger.info("ops of %s on platform %s\n%s", type(model).__name__, session.platform.name, as_text(rows))
    if session.tracer is not None:
        session.tracer.event("process", name=setproctitle.getproctitle())  # "sglang::scheduler_TP0"
        session.tracer.name_layers(model)
        session.tracer.bound([asdict(row) for row in rows])
    if session.settings.dispatch_log is not None:
        with session.settings.dispatch_log.open("a", encoding="utf-8") as log:
            log.writelines(
                f"[OOT-DISPATCH] {row.layer_class} → {row.kind}({row.implementation})\n" for row in rows if row.kind
            )
    for problem in _problems(rows, session):
        if session.settings.strict:
            raise problem
        logger.error("%s", problem)


def summarize(bindings: Iterable[Binding], dispatcher: Dispatcher) -> list[Row]:
    """One row for each (op, layer class, fate), in the order of their names."""
    counts = Counter(bindings)
    return sorted(
        (_row(binding, count, dispatcher) for binding, count in counts.items()),
        key=lambda row: (row.op, row.layer_class, row.implementation, row.note),
    )


def _row(binding: Binding, count: int, dispatcher: Dispatcher) -> Row:
    op, name = binding.op, binding.layer_class
    if binding.kept is not None:
        return Row(op, name, OWN, "", count, binding.kept, binding.meant)
    impl = dispatcher.select(op).require()[0].impl
    return Row(op, name, impl.impl_id, str(impl.kind), count, "", meant=False)


def as_text(rows: list[Row]) -> str:
    """The rows as a table for a log."""
    head = ("op", "layer class", "implementation", "layers", "")
    cells = [head, *((r.op, r.layer_class, r.implementation, str(r.layers), r.note) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _bind_layers(model: torch.nn.Module, binder: Binder, *, enabled: bool) -> list[Binding]:
    layers = [module for module in model.modules() if bridge_of(type(module)) is not None]
    for layer in fused_activations(model):
        binder.leave(layer, FUSED)
    for layer in layers if enabled else ():
        if layer._forward_method is None:
            layer._forward_method = layer._resolve_forward_method()
        if isinstance(layer._forward_method, Deferred):
            layer._forward_method.bind()
    return [binding for layer in layers if (binding := binder.binding(layer)) is not None]


def _problems(rows: list[Row], session: Session) -> Iterable[SeamError]:
    version = seams.sglang_version()
    targets = [seams.at(seams.LOAD_MODEL, version)]
    if session.settings.oot_enabled:
        targets.append(seams.at(seams.FORWARD_CHOICE, version))
    for target in targets:
        if target not in HookRegistry._patched:
            yield seams.unapplied(target)
    forced = seams.at(seams.FORCED_BACKEND, version)
    backend = pkgutil.resolve_name(forced)() if forced and session.settings.oot_enabled else None
    if backend is not None:
        yield SeamError(
            CORE,
            asked="layers that call the implementations above",
            found=f"SGLANG_FORCE_FUSED_OP_BACKEND={backend.value}, which goes before every one of them",
            do="unset SGLANG_FORCE_FUSED_OP_BACKEND, or set SGLANG_FL_OOT_ENABLED=0",
        )
    yield from _unserved(rows)


def _unserved(rows: list[Row]) -> Iterable[SeamError]:
    for op in sorted({row.op for row in rows}):
        mine = [row for row in rows if row.op == op]
        unwanted = [row for row in mine if row.note and not row.meant]
        if len(unwanted) == len(mine):
            yield SeamError(
                CORE,
                asked=f"{op}, which {sum(row.layers for row in mine)} layers of the model could use",
                found="no layer bound: " + "; ".join(f"{row.layer_class}: {row.note}" for row in unwanted),
                do=f"nothing, if SGLang's own forwards will do; say so with SGLANG_FL_OOT_BLACKLIST={op}",
            )
