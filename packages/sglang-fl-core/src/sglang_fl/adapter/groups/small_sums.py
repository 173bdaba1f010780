"""The sums that stay SGLang's: those that it has faster kernels for, where the user names no communicator."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed import Store

from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.exchange import Exchange, ExchangeError
from sglang_fl.tracing import Refusal


def kept_small_sums(coordinator: Any, group: Group, name: str, store: Store) -> Refusal | None:
    """Why SGLang takes a sum itself in place of communicator ``name``; None where it takes none. All ranks call it.

    Between the GPUs of one host SGLang adds small tensors by kernels of its own: 16 KB take them 2 us on two H200s, and
    NCCL, which other libraries stand on, 11 us (``benchmarks/results``). Which sums it takes it decides by what is the
    same in every rank; whether a rank has them it may find for itself alone, so that is agreed on. Raises
    CommunicatorError.
    """
    kernels: Any = getattr(coordinator, "ca_comm", None)
    has_them = kernels is not None and not kernels.disabled
    if not _in_every_rank(has_them, group, store):
        return None
    reason = f"SGLang's own kernels are faster for small sums; SGLANG_FL_DIST_BACKEND={name} has {name} serve them"

    def kept(collective: str, tensor: torch.Tensor) -> str | None:
        if collective != "all_reduce" or tensor.is_cpu or kernels.disabled:
            return None
        return reason if kernels.should_custom_ar(tensor) else None

    return kept


def _in_every_rank(here: bool, group: Group, store: Store) -> bool:
    exchange = Exchange(store, "small_sums", group.rank, group.size, group.timeout)
    try:
        return all(exchange.share(b"yes" if here else b""))
    except ExchangeError as error:
        raise CommunicatorError(
            f"group {group.name}, rank {group.rank}",
            asked="whether every rank has SGLang's kernels for small sums",
            found=str(error),
            do="see the log of the rank that does not answer",
        ) from error
