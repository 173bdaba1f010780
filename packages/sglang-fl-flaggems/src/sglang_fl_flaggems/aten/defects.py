"""What FlagGems gets wrong and does not tell: such ops stay PyTorch's own.

Seen by ``benchmarks/aten.py``, which calls both on the samples that PyTorch tests itself with.
"""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import Version

LATEST_EXAMINED = "5.0.2"
"""The latest release of FlagGems that was compared with PyTorch; what a later one gets wrong is not known."""

_WRONG: Mapping[str, tuple[str, ...]] = {
    "it takes tensors that are not contiguous for contiguous": (
        "amax",
        "aminmax",
        "index_select",
        "topk",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "var_mean.correction",
    ),
    "it does not broadcast": ("masked_scatter",),
}
_WRONG_ON_CUDA: Mapping[str, tuple[str, ...]] = {
    "on Hopper it takes both factors for tensors of one shape, dtype and layout": ("mul.Tensor",),
    "on Hopper it fills memory from the first element on, whatever the strides": (
        "fill.Scalar_out",
        "fill.Tensor_out",
        "fill_.Scalar",
        "fill_.Tensor",
    ),
}


def silently_wrong(release: str | None, device_type: str | None) -> dict[str, str]:
    """Overload -> what is wrong with FlagGems' function for it, in ``release`` on devices of torch's ``device_type``.

    Without a device type: what is wrong on all. FlagGems has functions of its own for some generations of a vendor's
    chips; which one is here cannot be told without starting it, so what is wrong on one of them counts for all.
    """
    if release is None or Version(release) > Version(LATEST_EXAMINED):
        return {}
    tables = [_WRONG, _WRONG_ON_CUDA] if device_type == "cuda" else [_WRONG]
    return {overload: what for table in tables for what, overloads in table.items() for overload in overloads}
