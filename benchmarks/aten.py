"""FlagGems' functions for PyTorch's own ops beside PyTorch's, on the samples that PyTorch tests itself with.

Whatever overloads of ATen a sample's call comes down to are called on copies, too, by FlagGems' function where it has
one: with strided tensors, with NaN and infinity, in place, and into an ``out``. Told are those whose results, or what
they wrote, are not PyTorch's: ``--rows FILE`` has an example of each.

    pip install expecttest                    (PyTorch's samples need it)
    python -m benchmarks.aten [--rows FILE] [--json FILE] [--seconds S]
"""

from __future__ import annotations

import csv
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple

import torch

from benchmarks.beside import RAISED, Beside, Finding, Function
from benchmarks.figures import Figures, file_to_write, parser, seconds
from sglang_fl_flaggems.aten.defects import silently_wrong
from sglang_fl_flaggems.aten.registration import rows_of
from sglang_fl_flaggems.aten.table import installed_package, read_release

DEVICE_TYPE = "cuda"
PROCESSES = 14
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
EXTREMES = (float("nan"), float("inf"), float("-inf"))
SAMPLES = 40
"""The most of an op and dtype."""

GRACE_SECONDS = 30.0
"""What a process has to end the call that it is in when time is up."""


class Examined(NamedTuple):
    """What one process has seen.

    Attributes:
        calls: how many, by overload.
        left: the ops that it did not come to: time was up, or an error on the device ended its work.
        without_samples: the ops of which it called nothing: no samples can be made here.
    """

    calls: Counter[str]
    findings: list[Finding]
    left: list[str]
    without_samples: list[str]


Examine = Callable[[list[str], float], Examined]


class Seen:
    """What all processes have seen; an example of each finding is in the CSV ``file``, if one is wanted."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._findings: dict[tuple[str, str], Finding] = {}
        self.calls: Counter[str] = Counter()
        self.left: list[str] = []
        """The ops that no process came to, or that have no samples."""

    @property
    def findings(self) -> list[Finding]:
        """One for each overload and what is wrong with it."""
        return sorted(self._findings.values())

    def add(self, examined: Examined) -> None:
        """Adds what a process has seen: whoever is stopped keeps that."""
        self.calls += examined.calls
        self.left += examined.without_samples
        for finding in examined.findings:
            self._findings.setdefault((finding.overload, finding.what), finding)
        if self._file is not None:
            with self._file.open("w", newline="") as out:
                csv.writer(out, lineterminator="\n").writerows([Finding._fields, *self.findings])


def main() -> None:
    """Examines every op that PyTorch has samples of, and exits 1 if one is wrong that the layer would replace."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--rows", type=file_to_write, metavar="FILE", help="write an example of each finding to FILE as CSV"
    )
    options.add_argument("--seconds", type=seconds, default=600.0, metavar="S", help="stop after so many")
    args = options.parse_args()
    deadline, seen = time.monotonic() + args.seconds, Seen(args.rows)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        names = pool.apply(_names)
    examine_all(names, _examined, seen, deadline)
    _report(seen, Figures(args.json))


def examine_all(names: Sequence[str], examine: Examine, seen: Seen, deadline: float) -> None:
    """Adds to ``seen`` what becomes of the ops of these names, in many processes.

    Args:
        examine: what one of them does with some of the names. It ends at the deadline, or soon after.
        deadline: of ``time.monotonic``. A process that does not answer soon after it is left behind.
    """
    running: list[list[str]] = []
    ended: Queue[tuple[list[str], Examined | BaseException]] = Queue()
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=1) as pool:

        def start(some: list[str]) -> None:
            def end(outcome: Examined | BaseException) -> None:
                ended.put((some, outcome))

            running.append(some)
            pool.apply_async(examine, (some, deadline), callback=end, error_callback=end)

        for i in range(PROCESSES):
            start(list(names[i::PROCESSES]))
        while running:
            try:
                given, outcome = ended.get(timeout=max(deadline + GRACE_SECONDS - time.monotonic(), 0.0))
            except Empty:
                print(f"{len(running)} processes did not answer", file=sys.stderr)
                break
            running.remove(given)
            left = _added(outcome, given, seen)
            if left and time.monotonic() < deadline:
                start(left)
            else:
                seen.left += left
    seen.left += chain.from_iterable(running)


def _added(outcome: Examined | BaseException, given: list[str], seen: Seen) -> list[str]:
    """Adds what a process has seen of what it was given, and returns what is left for another."""
    if isinstance(outcome, BaseException):  # it could not start, and no other would
        print(f"a process ended with {outcome!r}", file=sys.stderr)
        seen.left += given
        return []
    seen.add(outcome)
    return outcome.left


def _report(seen: Seen, figures: Figures) -> None:
    figures.add("aten.examined", len(seen.calls), "overloads", at_least=1)
    by_what = defaultdict(list)
    for finding in seen.findings:
        by_what[finding.what].append(finding.overload)
    for what, overloads in sorted(by_what.items()):
        print(f"{what}: {', '.join(overloads)}")
        figures.add(f"aten.{what}", len(overloads), "overloads")
    print(f"not reached: {', '.join(sorted(seen.left)) or 'none'}")
    figures.add("aten.not_reached", len(seen.left), "ops")
    unknown = {finding.overload for finding in seen.findings if finding.what != RAISED}
    unknown -= silently_wrong(read_release(installed_package()), DEVICE_TYPE).keys()
    print(f"wrong and yet replaced: {', '.join(sorted(unknown)) or 'none'}")
    figures.add("aten.wrong_and_replaced", len(unknown), "overloads", equals=0)
    figures.finish()


def _names() -> list[str]:
    return list(_ops())


def _ops() -> dict[str, Any]:
    """What PyTorch has samples of, by name."""
    from torch.testing._internal.common_methods_invocations import op_db  # noqa: PLC0415 - seconds

    return {_name(op): op for op in op_db}


def _name(op: Any) -> str:
    return f"{op.name} {op.variant_test_name}"


def _functions() -> dict[str, Function]:
    import flag_gems  # noqa: PLC0415 - it starts CUDA

    return {key: function for key, function, *_ in rows_of(flag_gems)}


def _examined(names: list[str], deadline: float) -> Examined:
    """What becomes of the ops of these names."""
    beside, ops, left = Beside(_functions(), DEVICE_TYPE), _ops(), [*names]
    without_samples = []
    torch.manual_seed(0)
    while left and time.monotonic() < deadline:
        name = left.pop(0)
        try:
            if not _examine(ops[name], beside, deadline):
                without_samples.append(name)
        except Exception as error:  # one op's samples are not worth what was seen of all others
            print(f"{name}: {error!r}, and the samples after it were left out", file=sys.stderr)
        if beside.is_broken:
            print(f"{name}: a call ended the process, and the samples after it were left out", file=sys.stderr)
            break
    return Examined(beside.calls, list(beside.findings.values()), left, without_samples)


def _examine(op: Any, beside: Beside, deadline: float) -> bool:
    """Was there a sample to call it with?"""
    beside.next_op()
    called = False
    for dtype in DTYPES:
        if dtype not in op.supported_dtypes(DEVICE_TYPE):
            continue
        for call in _calls(op, dtype):
            with torch.no_grad(), beside, suppress(Exception):  # PyTorch's own refusal: such a call is no sample
                call()
            called = True
            if beside.is_broken or time.monotonic() > deadline:
                return called
    return called


def _calls(op: Any, dtype: torch.dtype) -> Iterator[Callable[[], Any]]:
    try:
        samples = list(islice(op.sample_inputs(DEVICE_TYPE, dtype), SAMPLES))
    except Exception as error:  # samples that this machine cannot make
        print(f"{_name(op)}: no samples of {dtype}: {error!r}", file=sys.stderr)
        return
    for sample in samples:
        for given in (sample, _strided(sample), _extreme(sample)):
            if given is None:
                continue
            for fn in (op.op, op.inplace_variant, _into_out(op.op) if op.supports_out else None):
                if fn is not None:
                    yield lambda fn=fn, given=given: fn(given.input, *given.args, **given.kwargs)


def _into_out(fn: Callable[..., Any]) -> Callable[..., None]:
    """``fn`` writing into a tensor, and into one that is not contiguous."""

    def call(*args: Any, **kwargs: Any) -> None:
        own = fn(*args, **kwargs)
        for out in (torch.empty_like(own), own.new_empty((*own.shape, 2))[..., 0]):
            fn(*args, out=out, **kwargs)

    return call


def _extreme(sample: Any) -> Any:
    """The sample with NaN and infinite numbers in its input, or None where that takes none."""
    x = sample.input
    is_strided = isinstance(x, torch.Tensor) and x.layout == torch.strided
    if not is_strided or not x.is_floating_point() or x.numel() < len(EXTREMES):
        return None
    x = x.detach().clone(memory_format=torch.contiguous_format)
    x.view(-1)[: len(EXTREMES)] = torch.tensor(EXTREMES, dtype=x.dtype, device=x.device)
    return type(sample)(x, args=sample.args, kwargs=sample.kwargs)


def _strided(sample: Any) -> Any:
    try:
        return sample.noncontiguous()
    except Exception:  # of sparse tensors, say
        return None


if __name__ == "__main__":
    main()
