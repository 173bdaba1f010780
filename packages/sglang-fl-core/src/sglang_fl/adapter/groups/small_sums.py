"""The sums that stay SGLang's: those that it has faster kernels for, where the user names no communicator."""

from __future__ import annotations

from typing import Any

import torch

from sglang_fl.tracing import Refusal


def kept_small_sums(coordinator: Any, name: str, asked: str | None) -> Refusal | None:
    """Why SGLang takes a sum itself; None where it takes none, or where the user asked for communicator ``name``.

    Between the GPUs of one host SGLang adds small tensors by kernels of its own: 16 KB take them 2 us on two H200s, and
    NCCL, which other libraries stand on, 11 us (``benchmarks/results``). It decides by what is the same in every rank.
    """
    kernels = getattr(coordinator, "ca_comm", None)
    if kernels is None or name == asked:
        return None
    reason = f"SGLang's own kernels are faster for small sums; SGLANG_FL_DIST_BACKEND={name} has {name} serve them"

    def kept(collective: str, tensor: torch.Tensor) -> str | None:
        if collective != "all_reduce" or tensor.is_cpu or kernels.disabled:
            return None
        return reason if kernels.should_custom_ar(tensor) else None

    return kept
