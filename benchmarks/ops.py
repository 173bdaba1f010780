"""Every implementation of every op on this machine's GPU: its error against float64, and its time.

For each op, hidden size, number of tokens and dtype, every implementation that the installed plugins offer is called
eagerly, all calls of one before those of the next, and from CUDA graphs, which take turns, one of them a copy of as
many bytes. ``--rows FILE`` keeps them all as CSV; the figures are the worst of them.

    python -m benchmarks.ops [--rows FILE] [--json FILE] [--works W,...] [--hidden N,...] [--tokens N,...]
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from math import inf, nan
from pathlib import Path
from typing import Any

import torch

from benchmarks.device_timing import eager_us, graph_us
from benchmarks.figures import Figures, file_to_write, parser, some_of, worst
from benchmarks.op_cases import HIDDEN, TOKENS, Case, cases
from sglang_fl.ops import CONTRACTS
from sglang_fl.session import session

OURS = "flagos.triton"
COPY = "copy"
DEVICE = torch.device("cuda")
COMPILING_PROCESSES = 12
EARLIER_PASSES = 3
LARGE_BYTES = 64 << 20
WITHIN_OF_BEST, TINY_EAGER_US, OF_COPY = 1.05, 15.0, 0.9

Implementation = Callable[..., Any]
Eager = dict[tuple[Case, str], float]
"""Microseconds of a case by an implementation."""


@dataclass(frozen=True)
class Row:
    """One implementation of one case. ``refused`` says why it does not take the call; then there are no figures."""

    work: str
    dtype: str
    hidden: int
    tokens: int
    implementation: str
    error: float = float("nan")
    eager_us: float = float("nan")
    graph_us: float = float("nan")
    gb_per_s: float = float("nan")
    copy_gb_per_s: float = float("nan")
    megabytes: float = float("nan")
    refused: str = ""


def main() -> None:
    """Measures every case, and exits 1 when one of our kernels misses a bound."""
    args = _arguments()
    figures, wanted = Figures(args.json), [case for case in cases() if _is_wanted(case, args)]
    _compile(wanted)
    rows: list[Row] = []
    with torch.inference_mode(), (args.rows or Path(os.devnull)).open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        earlier = _earlier([case for case in wanted if case.tokens == 1])
        for case in wanted:
            measured = _measured(case, earlier)
            rows += measured
            writer.writerows([_short(getattr(row, field.name)) for field in fields(Row)] for row in measured)
            out.flush()  # whoever is stopped keeps what was measured
    _add_figures(rows, figures)
    figures.finish()


def _arguments() -> argparse.Namespace:
    result, works = parser(__doc__ or ""), dict.fromkeys(case.work for case in cases())
    result.add_argument("--rows", type=file_to_write, metavar="FILE", help="write every row to FILE as CSV")
    result.add_argument(
        "--works", type=some_of(*works), metavar="W,...", help="only these, e.g. silu_and_mul,rms_norm.residual"
    )
    result.add_argument("--hidden", type=some_of(*HIDDEN), metavar="N,...", help="only these hidden sizes")
    result.add_argument("--tokens", type=some_of(*TOKENS), metavar="N,...", help="only these numbers of tokens")
    return result.parse_args()


def _is_wanted(case: Case, args: argparse.Namespace) -> bool:
    asked = ((args.works, case.work), (args.hidden, str(case.hidden)), (args.tokens, str(case.tokens)))
    return all(words is None or value in words for words, value in asked)


def _compile(wanted: Sequence[Case]) -> None:
    """Calls each implementation once for each width and dtype, in many processes: kernels are compiled on the CPU, and
    the compilers keep what they made on disk. The few tokens and the many may want different ones."""
    least, most = min(case.tokens for case in wanted), max(case.tokens for case in wanted)
    first = [case for case in wanted if case.tokens in (least, most)]
    with ProcessPoolExecutor(COMPILING_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_call_all, first))


def _call_all(case: Case) -> None:
    with torch.inference_mode():
        arguments = case.arguments(DEVICE)
        for _, implementation, refusal in _implementations(case.op, arguments):
            if refusal is None:
                implementation(*arguments)
    torch.cuda.empty_cache()


def _earlier(tiny: Sequence[Case]) -> Eager:
    """What the cases take that the host is the whole of, some minutes before the rest is measured: a shared host may be
    slow for as long."""
    result: Eager = {}
    for _ in range(EARLIER_PASSES):
        for case in tiny:
            arguments = case.arguments(DEVICE)
            for name, implementation, refusal in _implementations(case.op, arguments):
                if refusal is None:
                    us = eager_us(_bound(implementation, arguments))
                    result[case, name] = min(us, result.get((case, name), us))
    return result


def _measured(case: Case, earlier: Eager) -> list[Row]:
    """A row for each implementation that this machine has for the case's op."""
    arguments = case.arguments(DEVICE)
    rows, calls, errors = [], {}, {}
    for name, implementation, refusal in _implementations(case.op, arguments):
        if refusal is not None:
            rows.append(_row(case, name, refused=refusal))
            continue
        errors[name] = case.error(implementation, DEVICE)
        calls[name] = _bound(implementation, case.arguments(DEVICE))
    eager = {name: min(eager_us(call), earlier.get((case, name), inf)) for name, call in calls.items()}
    calls[COPY] = _copy(case)
    graphed = graph_us(calls)
    speed = {name: case.traffic / us / 1e3 for name, us in graphed.items()}
    for name, error in errors.items():
        rows.append(
            _row(
                case,
                name,
                error=error,
                eager_us=eager[name],
                graph_us=graphed[name],
                gb_per_s=speed[name],
                copy_gb_per_s=speed[COPY],
                megabytes=case.traffic / 2**20,
            )
        )
    return rows


def _row(case: Case, name: str, **figures: Any) -> Row:
    return Row(case.work, case.dtype_name, case.hidden, case.tokens, name, **figures)


def _implementations(op: str, arguments: Sequence[Any]) -> Iterator[tuple[str, Implementation, str | None]]:
    """Each by its id, with why it refuses these arguments, if it does."""
    for candidate in session().candidates:
        impl = candidate.impl
        if impl.op == op and candidate.unavailable is None:
            accepts = impl.load_accepts()
            answer = True if accepts is None else accepts(*arguments)
            yield impl.impl_id, impl.load(), None if answer is True else str(answer)


def _bound(implementation: Implementation, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: implementation(*arguments)


def _copy(case: Case) -> Callable[[], Any]:
    """A copy that reads and writes as many bytes as the case must."""
    source, target = torch.empty(2, max(case.traffic // 2, 1), dtype=torch.uint8, device=DEVICE)
    return lambda: target.copy_(source)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _add_figures(rows: Sequence[Row], figures: Figures) -> None:
    served = [row for row in rows if not row.refused]
    for (work, name, dtype), mine in _grouped(served, "work", "implementation", "dtype"):
        bound = CONTRACTS[work.partition(".")[0]].tolerance[dtype] if name == OURS else None
        figures.add(f"ops.{work}.{name}.{dtype}.error", worst(row.error for row in mine), "relative", at_most=bound)
    best: dict[tuple[Any, ...], float] = {}
    for key, same in _grouped(served, "work", "dtype", "hidden", "tokens"):
        best[key] = min(row.graph_us for row in same)
    copied = max((row.copy_gb_per_s for row in served if _is_large(row)), default=nan)
    for (work,), every in _grouped(rows, "work"):
        mine = [row for row in every if row.implementation == OURS and not row.refused]
        measured = {(row.dtype, row.hidden, row.tokens) for row in every}
        figures.add(f"ops.{work}.{OURS}.not_served", len(measured) - len(mine), "cases", equals=0)
        _add_ours(work, mine, best, copied, figures)


def _is_large(row: Row) -> bool:
    return row.megabytes * 2**20 >= LARGE_BYTES


def _add_ours(
    work: str, rows: Sequence[Row], best: dict[tuple[Any, ...], float], copied: float, figures: Figures
) -> None:
    """``copied`` is the best GB/s of any large copy of the run: some sizes are copied 20 % slower than others."""
    tiny = [row.eager_us for row in rows if row.tokens == 1]
    large = [row for row in rows if _is_large(row)]
    wide = [row for row in rows if (row.tokens, row.hidden) == (16384, 8192)]
    name = f"ops.{work}.{OURS}"
    if tiny:
        figures.add(f"{name}.tiny_eager", max(tiny), "us", at_most=TINY_EAGER_US)
    if large:
        ratios = {row: row.graph_us / best[row.work, row.dtype, row.hidden, row.tokens] for row in large}
        slowest = max(ratios, key=lambda row: ratios[row])
        figures.add(f"{name}.large_over_best", ratios[slowest], "ratio", at_most=WITHIN_OF_BEST)
        print(f"worst: {slowest}", file=sys.stderr)
    for row in wide:
        figures.add(f"{name}.{row.dtype}.of_copy_bandwidth", row.gb_per_s / copied, "ratio", at_least=OF_COPY)


def _grouped(rows: Iterable[Row], *names: str) -> Iterable[tuple[tuple[Any, ...], list[Row]]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(getattr(row, name) for name in names)].append(row)
    return groups.items()


if __name__ == "__main__":
    main()
