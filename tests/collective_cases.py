"""What every collective of a communicator must give, for any group: each case computes what it wants by itself."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch

from sglang_fl.communication.served import ServedGroup

Case = Callable[[ServedGroup], tuple[torch.Tensor, torch.Tensor]]
"""Gives what a rank got, and what it should have got."""

REDUCED = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.int8)
MOVED = (*REDUCED, torch.uint8, torch.int16, torch.bool, torch.complex64, torch.float8_e4m3fn)
SHAPES = {"vector": (6,), "matrix": (4, 3), "cube": (2, 3, 4), "scalar": (), "empty": (0, 3)}


def run_cases(served: ServedGroup) -> dict[str, str]:
    """Runs every case in the same order in every rank: name -> "ok", or what is wrong."""
    return {name: _run(case, served) for name, case in CASES.items()}


def _run(case: Case, served: ServedGroup) -> str:
    try:
        got, wanted = case(served)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    except Exception:
        return traceback.format_exc()
    return "ok"


def of_rank(served: ServedGroup, rank: int, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What ``rank`` puts in: small whole numbers, so that every order of adding gives the same sum."""
    numbers = (torch.arange(math.prod(shape), device=served.group.device) + 3 * rank) % 5
    return numbers.to(dtype).reshape(shape)


def of_all(served: ServedGroup, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [of_rank(served, rank, shape, dtype) for rank in range(served.group.size)]


def total(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts)).sum(0).to(parts[0].dtype)


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, in every other element of a larger tensor."""
    wide = tensor.new_zeros(*tensor.shape, 2)
    wide[..., 0] = tensor
    return wide[..., 0]


def _all_reduce(shape: Sequence[int], dtype: torch.dtype, lay_out: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        mine = lay_out(of_rank(served, served.group.rank, shape, dtype))
        served.all_reduce(mine)
        return mine, total(of_all(served, shape, dtype))

    return case


def _all_gather(shape: Sequence[int], dtype: torch.dtype, lay_out: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        output = lay_out(torch.zeros(served.group.size, *shape, dtype=dtype, device=served.group.device))
        served.all_gather(output, lay_out(of_rank(served, served.group.rank, shape, dtype)))
        return output, torch.stack(of_all(served, shape, dtype))

    return case


def _all_gatherv(rows_of: Callable[[int], int], dtype: torch.dtype) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [rows_of(rank) for rank in range(served.group.size)]
        parts = [of_rank(served, rank, (count, 3), dtype) for rank, count in enumerate(rows)]
        output = torch.zeros(sum(rows), 3, dtype=dtype, device=served.group.device)
        served.all_gatherv(output, parts[served.group.rank], [3 * count for count in rows])
        return output, torch.cat(parts)

    return case


def _reduce_scatter(dtype: torch.dtype, lay_out: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        size, rank = served.group.size, served.group.rank
        whole = lay_out(of_rank(served, rank, (2 * size, 3), dtype))
        output = lay_out(torch.zeros(2, 3, dtype=dtype, device=served.group.device))
        served.reduce_scatter(output, whole)
        return output, total(of_all(served, (2 * size, 3), dtype))[2 * rank : 2 * rank + 2]

    return case


def _reduce_scatterv(rows_of: Callable[[int], int]) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        rows, rank = [rows_of(rank) for rank in range(served.group.size)], served.group.rank
        whole = of_rank(served, rank, (sum(rows), 3))
        before = whole.clone()
        output = torch.zeros(rows[rank], 3, device=served.group.device)
        served.reduce_scatterv(output, whole, [3 * count for count in rows])
        torch.testing.assert_close(whole, before)  # the input is the caller's still
        return output, total(of_all(served, (sum(rows), 3))).split(rows)[rank]

    return case


def _all_to_all(dtype: torch.dtype) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        size, rank = served.group.size, served.group.rank
        output = torch.zeros(2 * size, 3, dtype=dtype, device=served.group.device)
        served.all_to_all(output, of_rank(served, rank, (2 * size, 3), dtype))
        return output, torch.cat([theirs[2 * rank : 2 * rank + 2] for theirs in of_all(served, (2 * size, 3), dtype)])

    return case


def _broadcast(source: int, dtype: torch.dtype, lay_out: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        root = source % served.group.size
        mine = lay_out(of_rank(served, served.group.rank, (4, 3), dtype))
        served.broadcast(mine, root)
        return mine, of_rank(served, root, (4, 3), dtype)

    return case


def _ring(dtype: torch.dtype) -> Case:
    """Each rank sends to the next and receives from the one before, at once."""

    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        size, rank = served.group.size, served.group.rank
        got = torch.zeros(4, 3, dtype=dtype, device=served.group.device)
        with served.batch():
            served.send(strided(of_rank(served, rank, (4, 3), dtype)), (rank + 1) % size)
            served.recv(got, (rank - 1) % size)
        return got, of_rank(served, (rank - 1) % size, (4, 3), dtype)

    return case


def _gathers_in_a_batch(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = [torch.zeros(served.group.size, 3, device=served.group.device) for _ in range(2)]
    mine = of_rank(served, served.group.rank, (3,))
    with served.batch():
        served.all_gather(outputs[0], strided(mine))
        served.all_gather(outputs[1], strided(mine + 1))
    theirs = torch.stack(of_all(served, (3,)))
    return torch.stack(outputs), torch.stack([theirs, theirs + 1])


def _to_the_last(asynchronous: bool) -> Case:
    """Rank 0 sends to the last rank."""

    def case(served: ServedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        last, wanted = served.group.size - 1, of_rank(served, 0, (4, 3))
        got = wanted.clone() if served.group.rank != last else torch.zeros_like(wanted)
        if served.group.rank == 0 and asynchronous:
            work, kept = served.isend(got, last)
            work.wait()
            del kept
        elif served.group.rank == 0:
            served.send(got, last)
        elif served.group.rank == last:
            served.recv(got, 0)
        return got, wanted

    return case


def _cases() -> Iterator[tuple[str, Case]]:
    layouts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"": lambda tensor: tensor, " strided": strided}
    uneven = {"uneven": lambda rank: rank + 1, "one empty": lambda rank: 2 * (rank == 0), "all empty": lambda rank: 0}
    for layout, lay_out in layouts.items():
        for name, shape in SHAPES.items():
            yield f"all_reduce {name}{layout}", _all_reduce(shape, torch.float32, lay_out)
            yield f"all_gather {name}{layout}", _all_gather(shape, torch.float32, lay_out)
        yield f"reduce_scatter{layout}", _reduce_scatter(torch.float32, lay_out)
        yield f"broadcast{layout}", _broadcast(-1, torch.float32, lay_out)
    for dtype in REDUCED:
        yield f"all_reduce {dtype}", _all_reduce((4, 3), dtype, layouts[""])
        yield f"reduce_scatter {dtype}", _reduce_scatter(dtype, layouts[""])
    for dtype in MOVED:
        yield f"all_gather {dtype}", _all_gather((4, 3), dtype, layouts[""])
        yield f"all_gatherv {dtype}", _all_gatherv(uneven["uneven"], dtype)
        yield f"all_to_all {dtype}", _all_to_all(dtype)
        yield f"broadcast {dtype}", _broadcast(0, dtype, layouts[""])
        yield f"a ring of sends {dtype}", _ring(dtype)
    for name, rows_of in uneven.items():
        yield f"all_gatherv {name}", _all_gatherv(rows_of, torch.float32)
        yield f"reduce_scatterv {name}", _reduce_scatterv(rows_of)
    yield "several gathers in a batch", _gathers_in_a_batch
    yield "send", _to_the_last(asynchronous=False)
    yield "isend", _to_the_last(asynchronous=True)


CASES = dict(_cases())
