"""FlagGems' functions for PyTorch's own ops beside PyTorch's, on the samples that PyTorch tests itself with.

Whatever overloads of ATen a sample's call comes down to are called on copies, too, by FlagGems' function where it has
one. Told are those whose results, or what they wrote, are not PyTorch's: ``--rows FILE`` has an example of each.

    pip install expecttest                    (PyTorch's samples need it)
    python -m benchmarks.aten [--rows FILE] [--json FILE] [--seconds S]
"""

from __future__ import annotations

import csv
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.figures import Figures, parser
from sglang_fl_flaggems.aten.defects import silently_wrong

DEVICE_TYPE = "cuda"
RAISED = "raised"
PROCESSES = 14
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)
SAMPLES, CALLS = 40, 24
"""The most of an op and dtype; the most calls of an overload that one op's samples come down to."""

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.bfloat16: 3e-2}

Function = Callable[..., Any]


class Finding(NamedTuple):
    """What FlagGems' function made of one call of an overload, where that is not what PyTorch's makes of it.

    Attributes:
        what: ``raised``, or what differs: ``dtype``, ``shape``, ``values``, ``written``.
        call: the arguments, in words.
    """

    overload: str
    what: str
    call: str


class Examined(NamedTuple):
    """What one process has seen.

    Attributes:
        calls: how many, by overload.
        left: the ops that are still to be examined, by a fresh process: a wrong address ends this one's work.
    """

    calls: Counter[str]
    findings: list[Finding]
    left: list[str]


def main() -> None:
    """Examines every op that PyTorch has samples of, and exits 1 if one is wrong that the layer would replace."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=Path, metavar="FILE", help="write an example of each finding to FILE as CSV")
    options.add_argument("--seconds", type=float, default=600.0, metavar="S", help="stop after so many")
    args = options.parse_args()
    calls, findings = _examined_by_all(time.monotonic() + args.seconds)
    if args.rows is not None:
        with args.rows.open("w", newline="") as out:
            csv.writer(out).writerows([Finding._fields, *findings])
    _report(calls, findings, args.json)


def _examined_by_all(deadline: float) -> tuple[Counter[str], list[Finding]]:
    calls: Counter[str] = Counter()
    findings: dict[tuple[str, str], Finding] = {}
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=1) as pool:
        names = pool.apply(_names)
        tasks = [pool.apply_async(_examined, (names[i::PROCESSES], deadline)) for i in range(PROCESSES)]
        while tasks:
            try:
                examined = tasks.pop(0).get(max(deadline + 30.0 - time.monotonic(), 0.0))
            except multiprocessing.TimeoutError:
                print("a process did not answer", file=sys.stderr)
                continue
            calls += examined.calls
            for finding in examined.findings:
                findings.setdefault((finding.overload, finding.what), finding)
            if examined.left:
                tasks.append(pool.apply_async(_examined, (examined.left, deadline)))
    return calls, sorted(findings.values())


def _report(calls: Counter[str], findings: Sequence[Finding], file: Path | None) -> None:
    figures = Figures()
    figures.add("aten.examined", len(calls), "overloads")
    by_what = defaultdict(list)
    for finding in findings:
        by_what[finding.what].append(finding.overload)
    for what, overloads in sorted(by_what.items()):
        print(f"{what}: {', '.join(overloads)}")
        figures.add(f"aten.{what}", len(overloads), "overloads")
    unknown = {finding.overload for finding in findings if finding.what != RAISED}
    unknown -= silently_wrong(version("flag-gems"), DEVICE_TYPE).keys()
    print(f"wrong and yet replaced: {', '.join(sorted(unknown)) or 'none'}")
    figures.add("aten.wrong_and_replaced", len(unknown), "overloads", equals=0)
    figures.finish(file)


def _names() -> list[str]:
    return [f"{op.name} {op.variant_test_name}" for op in _samples_of_pytorch()]


def _samples_of_pytorch() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db  # noqa: PLC0415 - seconds

    return list(op_db)


def _functions() -> dict[str, Function]:
    import flag_gems  # noqa: PLC0415 - it starts CUDA

    return {row[0]: row[1] for row in flag_gems._FULL_CONFIG}


def _examined(names: Sequence[str], deadline: float) -> Examined:
    """What becomes of the ops of these names."""
    beside, left = Beside(_functions(), DEVICE_TYPE), list(names)
    ops = {f"{op.name} {op.variant_test_name}": op for op in _samples_of_pytorch()}
    torch.manual_seed(0)
    while left and not beside.is_broken and time.monotonic() < deadline:
        _examine(ops[left.pop(0)], beside, deadline)
    return Examined(beside.calls, list(beside.findings.values()), left if beside.is_broken else [])


def _examine(op: Any, beside: Beside, deadline: float) -> None:
    beside.next_op()
    for dtype in DTYPES:
        if dtype not in op.supported_dtypes(DEVICE_TYPE):
            continue
        for call in _calls(op, dtype):
            if beside.is_broken or time.monotonic() > deadline:
                return
            with torch.no_grad(), beside:
                try:
                    call()
                except Exception:  # PyTorch's own refusal: such a call is no sample
                    continue


def _calls(op: Any, dtype: torch.dtype) -> Iterator[Callable[[], Any]]:
    try:
        samples = list(islice(op.sample_inputs(DEVICE_TYPE, dtype), SAMPLES))
    except Exception:  # samples that this machine cannot make
        return
    for sample in samples:
        for given in (sample, _strided(sample)):
            if given is None:
                continue
            for fn in (op.op, op.inplace_variant):
                if fn is not None:
                    yield lambda fn=fn, given=given: fn(given.input, *given.args, **given.kwargs)


def _strided(sample: Any) -> Any:
    try:
        return sample.noncontiguous()
    except Exception:  # of sparse tensors, say
        return None


class Beside(TorchDispatchMode):
    """Calls FlagGems' functions, too, on copies, wherever PyTorch's own are called."""

    def __init__(self, functions: Mapping[str, Function], device_type: str) -> None:
        super().__init__()
        self._functions, self._device_type = functions, device_type
        self._seen: set[tuple[str, str]] = set()
        self._calls_of_op: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.is_broken = False

    def next_op(self) -> None:
        """What follows are calls of another op's samples."""
        self._calls_of_op.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """PyTorch's own result."""
        kwargs = kwargs or {}
        overload = str(func).removeprefix("aten.").removesuffix(".default")
        function = self._functions.get(overload)
        told = _told(args, kwargs)
        if function is None or self._is_enough(overload, told) or not self._takes((args, kwargs)):
            return func(*args, **kwargs)
        given = _copied((args, kwargs))
        own = func(*args, **kwargs)
        try:
            result = function(*given[0], **given[1])
            torch.get_device_module(self._device_type).synchronize()
        except Exception as error:  # whatever FlagGems raises
            self._tell(overload, RAISED, f"{told}: {type(error).__name__}: {str(error)[:200]}")
            self.is_broken = "CUDA error" in str(error) or "illegal" in str(error)
            return own
        what = _difference(own, result, func)
        if what is None and _difference(
            *(list(map(_whole, _tensors(values))) for values in ((args, kwargs), given)), func
        ):
            what = "written"
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
    """As they lie in memory: with their strides, and what is around them; those that share memory still do."""
    storages: dict[int, Any] = {}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        storage = leaf.untyped_storage()
        own = storages.setdefault(storage._cdata, storage.clone())
        return torch.empty(0, dtype=leaf.dtype, device=leaf.device).set_(
            own, leaf.storage_offset(), leaf.shape, leaf.stride()
        )

    return tree_map(copied, values)


def _difference(own: Any, other: Any, func: Any) -> str | None:
    mine, others = _tensors(own), _tensors(other)
    if [a.shape for a in mine] != [b.shape for b in others]:
        return "shape"
    if [a.dtype for a in mine] != [b.dtype for b in others]:
        return "dtype"
    return None if _is_undetermined(func) or all(map(_is_close, mine, others)) else "values"


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


def _word(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}{list(value.shape)}" + ("" if value.is_contiguous() else f" of strides {list(value.stride())}")
    return f"[{', '.join(map(_word, value))}]" if isinstance(value, list | tuple) else str(value)


if __name__ == "__main__":
    main()
