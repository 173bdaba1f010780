"""Is a result near enough to the exact one?"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sglang_fl.testing.exact import Exact


def distance(got: torch.Tensor, wanted: Exact, tolerance: Mapping[str, float]) -> str | None:
    """Which element of ``got`` is how far off, or None when all are near enough.

    An element may be off by the tolerance of its dtype, relative to the exact value, and, where terms cancel, by the
    tolerance of float32 relative to the terms: ops compute in float32 and round once. What is beyond the dtype's
    largest number may be that or infinite.
    """
    info, relative = torch.finfo(got.dtype), tolerance[str(got.dtype).removeprefix("torch.")]
    values = got.detach().cpu().double()
    smallest = info.smallest_normal * info.eps  # the distance between subnormal numbers
    allowed = relative * wanted.values.abs() + tolerance["float32"] * wanted.terms + smallest
    is_near = (values - wanted.values).abs() <= allowed
    is_near |= _both_beyond(values, wanted.values, allowed, info.max)
    if bool(is_near.all()):
        return None
    return _told(values, wanted.values, allowed, is_near)


def _both_beyond(values: torch.Tensor, wanted: torch.Tensor, allowed: torch.Tensor, largest: float) -> torch.Tensor:
    beyond = wanted.abs() + allowed >= largest
    return beyond & (values.sign() == wanted.sign()) & (values.abs() + allowed >= wanted.abs().clamp(max=largest))


def _told(values: torch.Tensor, wanted: torch.Tensor, allowed: torch.Tensor, is_near: torch.Tensor) -> str:
    off = (~is_near).nonzero()
    where = tuple(off[0].tolist())
    return (
        f"element {list(where)} is {float(values[where]):.7g}, exact is {float(wanted[where]):.7g}, allowed to be off "
        f"by {float(allowed[where]):.2g}; {len(off)} of {is_near.numel()} elements are off by more"
    )
