"""Other functions called beside PyTorch's own ops, on copies of what these are given: what do they make of it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CALLS = 24
"""The most calls of an overload that one op's samples come down to."""

RAISED, NOT_COMPARED = "raised", "not_compared"
TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.bfloat16: 3e-2}

Function = Callable[..., Any]


class Finding(NamedTuple):
    """What the other function made of one call of an overload, where that is not what PyTorch's makes of it.

    Attributes:
        what: ``raised``, or what differs: ``device``, ``dtype``, ``shape``, ``values``, ``written``; ``not_compared``
            where comparing them raised.
        call: the arguments, in words.
    """

    overload: str
    what: str
    call: str


class Beside(TorchDispatchMode):
    """Calls ``functions``, by overload, too, on copies, wherever PyTorch's own are called on ``device_type``."""

    def __init__(self, functions: Mapping[str, Function], device_type: str) -> None:
        super().__init__()
        self._functions, self._device_type = functions, device_type
        self._synchronize = torch.get_device_module(device_type).synchronize
        self._seen: set[tuple[str, str]] = set()
        self._calls_of_op: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.findings: dict[tuple[str, str], Finding] = {}

    @property
    def is_broken(self) -> bool:
        """Has a call ended this process's use of the device? Waits for what was called."""
        try:
            self._synchronize()
        except Exception:  # such an error stays
            return True
        return False

    def next_op(self) -> None:
        """What follows are calls of another op's samples."""
        self._calls_of_op.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """PyTorch's own result."""
        kwargs = kwargs or {}
        overload = str(func).removeprefix("aten.").removesuffix(".default")
        function = self._functions.get(overload)
        if function is None:
            return func(*args, **kwargs)
        told = _told(args, kwargs)
        if self._is_enough(overload, told) or not self._takes((args, kwargs)):
            return func(*args, **kwargs)
        given = _copied((args, kwargs))
        own = func(*args, **kwargs)
        if self.is_broken:  # not by the other function
            return own
        try:
            result = function(*given[0], **given[1])
            self._synchronize()
        except Exception as error:  # whatever it raises
            self._tell(overload, RAISED, _with_error(told, error))
            return own
        try:
            what = _difference(own, result, func) or _written((args, kwargs), given, func)
        except Exception as error:  # it would pass for PyTorch's refusal of the call
            what, told = NOT_COMPARED, _with_error(told, error)
        if what is not None:
            self._tell(overload, what, told)
        return own

    def _takes(self, values: Any) -> bool:
        tensors = _tensors(values)
        return bool(tensors) and all(
            tensor.device.type == self._device_type and tensor.layout is torch.strided for tensor in tensors
        )

    def _is_enough(self, overload: str, told: str) -> bool:
        if self.is_broken or self._calls_of_op[overload] >= CALLS or (overload, told) in self._seen:
            return True
        self._seen.add((overload, told))
        self._calls_of_op[overload] += 1
        self.calls[overload] += 1
        return False

    def _tell(self, overload: str, what: str, told: str) -> None:
        self.findings.setdefault((overload, what), Finding(overload, what, told))


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _copied(values: Any) -> Any:
    """As they lie in memory: with their strides, and what is around them; those that share memory still do. What is
    conjugate or negative only when it is read is so here."""
    storages: dict[int, Any] = {}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        storage = leaf.untyped_storage()
        own = storages.setdefault(storage._cdata, storage.clone())
        copy = torch.empty(0, dtype=leaf.dtype, device=leaf.device).set_(
            own, leaf.storage_offset(), leaf.shape, leaf.stride()
        )
        copy = copy.conj() if leaf.is_conj() else copy
        return torch._neg_view(copy) if leaf.is_neg() else copy

    return tree_map(copied, values)


def _difference(own: Any, other: Any, func: Any) -> str | None:
    mine, others = _tensors(own), _tensors(other)
    if [a.shape for a in mine] != [b.shape for b in others]:
        return "shape"
    if [a.dtype for a in mine] != [b.dtype for b in others]:
        return "dtype"
    if [a.device for a in mine] != [b.device for b in others]:
        return "device"
    return None if _is_undetermined(func) or all(map(_is_close, mine, others)) else "values"


def _written(mine: Any, others: Any, func: Any) -> str | None:
    """Does what they were given differ now, and what lies around it?"""
    wholes = (list(map(_whole, _tensors(values))) for values in (mine, others))
    return "written" if _difference(*wholes, func) else None


def _is_undetermined(func: Any) -> bool:
    """May two calls of it give different values?"""
    return torch.Tag.nondeterministic_seeded in func.tags or "empty" in str(func)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """All that lies in its memory."""
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    tolerance = TOLERANCE.get(a.dtype, 1e-3)
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.to(wide), b.to(wide)
    finite = a[a.isfinite()].abs()
    scale = finite.mean().item() if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _told(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    words = [*map(_word, args), *(f"{name}={_word(value)}" for name, value in kwargs.items())]
    return ", ".join(words)


def _with_error(told: str, error: Exception) -> str:
    return f"{told}: {type(error).__name__}: {str(error)[:200]}"


def _word(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        layout = "" if value.is_contiguous() else f" of strides {list(value.stride())}"
        read_as = " to be conjugated" if value.is_conj() else ""
        read_as += " to be negated" if value.is_neg() else ""
        finite = "" if value.isfinite().all() else " with NaN or infinity"
        return f"{dtype}{list(value.shape)}{layout}{read_as}{finite}"
    return f"[{', '.join(map(_word, value))}]" if isinstance(value, list | tuple) else str(value)
