"""What a rank got beside what it should have got."""

from __future__ import annotations

import torch


def difference(what: str, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
    """The first element that differs, or None. Both on the CPU, of one dtype and one dimension; -0.0 equals 0.0."""
    differ = (_comparable(got) != _comparable(wanted)).nonzero().flatten()
    if not len(differ):
        return None
    where = int(differ[0])
    return f"{what}: element {where} is {got[where]}, not {wanted[where]}; {len(differ)} of {len(got)} differ"


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in a dtype that every torch compares: it does not compare all."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    if tensor.is_floating_point():
        return tensor.to(torch.float64)
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])
