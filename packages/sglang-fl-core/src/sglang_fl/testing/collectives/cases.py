"""What every rank must get, for each collective: each case computes by itself what it wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from sglang_fl.communication.collectives import Collectives, Group

SIZES = (1, 7, 1024, 65537)
"""Elements of each rank's part: one, odd, aligned, more than one chunk."""

Checks = Iterator[tuple[str, torch.Tensor, torch.Tensor]]
"""What was done, what this rank got, and what it should have got."""


@dataclass(frozen=True)
class End:
    """One rank's end of a communicator."""

    made: Collectives
    group: Group

    @property
    def me(self) -> int:
        """This rank within the group."""
        return self.group.rank

    def dtypes(self, collective: str) -> list[torch.dtype]:
        """What it takes, in the same order in every rank."""
        return sorted(self.made.dtypes[collective], key=str)

    def numbers(self, rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """What ``rank`` has to move: numbers that take all bits of the dtype, so that none may be lost on the way.

        On the CPU, as all that is wanted: devices cannot compute in every dtype that they move.
        """
        random = torch.Generator().manual_seed(1000 * rank + count)
        if dtype.is_complex:
            pairs = torch.randn((count, 2), generator=random, dtype=torch.float64)
            return torch.view_as_complex(pairs).to(dtype)
        if dtype.is_floating_point:
            return torch.randn(count, generator=random, dtype=torch.float64).to(dtype)
        if dtype is torch.bool:
            return torch.randint(2, (count,), generator=random).to(dtype)
        return torch.randint(256, (count * dtype.itemsize,), generator=random, dtype=torch.uint8).view(dtype)

    def all_numbers(self, count: int, dtype: torch.dtype) -> list[torch.Tensor]:
        """What each rank has to move."""
        return [self.numbers(rank, count, dtype) for rank in range(self.group.size)]

    def part(self, rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """What ``rank`` adds: as many bits as the sum of all ranks can hold."""
        numbers = self.numbers(rank, count, dtype)
        if _is_integer(dtype):  # by numpy here and below: torch does not compute in all unsigned ones
            numbers = torch.from_numpy(numbers.numpy() >> (self.group.size - 1).bit_length())
        return numbers

    def total(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """The sum of what they add, rounded once.

        Right for two ranks alone: every right way to add two numbers comes to this, be it in their own precision or in
        a wider one. Of three the order counts.
        """
        parts = [self.part(rank, count, dtype) for rank in range(self.group.size)]
        if _is_integer(dtype):
            return torch.from_numpy(sum(part.numpy() for part in parts))
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return torch.stack([part.to(wide) for part in parts]).sum(0).to(dtype)

    def to_move(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """What this rank has to move, for the communicator."""
        return self.on_device(self.numbers(self.me, count, dtype))

    def to_add(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """What this rank adds, for the communicator."""
        return self.on_device(self.part(self.me, count, dtype))

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy where the group's tensors are."""
        return tensor.to(self.group.device, copy=True)

    def empty(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """A result to be: of numbers that none should keep."""
        return self.on_device(torch.full((count,), 9).to(dtype))


def _is_integer(dtype: torch.dtype) -> bool:
    """Is it added as integers are? A sum of booleans is true where any of them is."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool)


@dataclass(frozen=True)
class Case:
    """A rule for some collectives.

    Attributes:
        needs: the collectives that it calls.
        checks: runs it in one rank; all ranks run it alike.
    """

    needs: tuple[str, ...]
    checks: Callable[[End], Checks]


def _each(collective: str, check: Callable[[End, int, torch.dtype], Checks]) -> Case:
    """A case of one collective, for every dtype that it takes and parts of every size."""

    def checks(end: End) -> Checks:
        for dtype in end.dtypes(collective):
            for count in SIZES:
                for what, got, wanted in check(end, count, dtype):
                    yield f"{what} of {count} {dtype}", got, wanted

    return Case((collective,), checks)


def _all_reduce(end: End, count: int, dtype: torch.dtype) -> Checks:
    mine, output = end.to_add(count, dtype), end.empty(count, dtype)
    end.made.all_reduce(output, mine)
    yield "the sum", output, end.total(count, dtype)
    yield "the input, which stays,", mine, end.part(end.me, count, dtype)


def _all_reduce_in_place(end: End, count: int, dtype: torch.dtype) -> Checks:
    mine = end.to_add(count, dtype)
    end.made.all_reduce(mine, mine)
    yield "the sum in place", mine, end.total(count, dtype)


def _all_gather(end: End, count: int, dtype: torch.dtype) -> Checks:
    mine, output = end.to_move(count, dtype), end.empty(count * end.group.size, dtype)
    end.made.all_gather(output, mine)
    yield "all parts", output, torch.cat(end.all_numbers(count, dtype))
    yield "the input, which stays,", mine, end.numbers(end.me, count, dtype)


def _all_gatherv(end: End, count: int, dtype: torch.dtype) -> Checks:
    for empty in range(end.group.size):  # each rank in turn has nothing
        sizes = [0 if rank == empty else count + rank for rank in range(end.group.size)]
        parts = [end.numbers(rank, size, dtype) for rank, size in enumerate(sizes)]
        mine, output = end.to_move(sizes[end.me], dtype), end.empty(sum(sizes), dtype)
        end.made.all_gatherv(output, mine, sizes)
        yield f"all parts, none of rank {empty},", output, torch.cat(parts)
        yield "the input, which stays,", mine, parts[end.me]


def _reduce_scatter(end: End, count: int, dtype: torch.dtype) -> Checks:
    whole = end.to_add(count * end.group.size, dtype)
    output = end.empty(count, dtype)
    end.made.reduce_scatter(output, whole)
    yield "a part of the sum", output, end.total(count * end.group.size, dtype).chunk(end.group.size)[end.me]
    yield "the input, which stays,", whole, end.part(end.me, count * end.group.size, dtype)


def _reduce_scatterv(end: End, count: int, dtype: torch.dtype) -> Checks:
    for empty in range(end.group.size):
        sizes = [0 if rank == empty else count + rank for rank in range(end.group.size)]
        whole, output = end.to_add(sum(sizes), dtype), end.empty(sizes[end.me], dtype)
        end.made.reduce_scatterv(output, whole, sizes)
        wanted = end.total(sum(sizes), dtype).split(sizes)[end.me]
        yield f"a part of the sum, none for rank {empty},", output, wanted
        yield "the input, which stays,", whole, end.part(end.me, sum(sizes), dtype)


def _all_to_all(end: End, count: int, dtype: torch.dtype) -> Checks:
    size = end.group.size
    mine, output = end.to_move(count * size, dtype), end.empty(count * size, dtype)
    end.made.all_to_all(output, mine)
    theirs = end.all_numbers(count * size, dtype)
    yield "a part of each", output, torch.cat([whole.chunk(size)[end.me] for whole in theirs])
    yield "the input, which stays,", mine, theirs[end.me]


def _broadcast(end: End, count: int, dtype: torch.dtype) -> Checks:
    for source in range(end.group.size):
        mine = end.to_move(count, dtype)
        end.made.broadcast(mine, source)
        yield f"what rank {source} has", mine, end.numbers(source, count, dtype)


def _send(end: End, count: int, dtype: torch.dtype) -> Checks:
    yield from _pass(end, count, dtype, end.made.send)


def _isend(end: End, count: int, dtype: torch.dtype) -> Checks:
    yield from _pass(end, count, dtype, lambda tensor, to: end.made.isend(tensor, to).wait())


def _pass(end: End, count: int, dtype: torch.dtype, send: Callable[[torch.Tensor, int], object]) -> Checks:
    """From each rank to the next, one after the other."""
    for source in range(end.group.size):
        destination = (source + 1) % end.group.size
        if end.me == source:
            mine = end.to_move(count, dtype)
            send(mine, destination)
            yield "what was sent, which stays,", mine, end.numbers(source, count, dtype)
        if end.me == destination:
            got = end.empty(count, dtype)
            end.made.recv(got, source)
            yield f"what rank {source} sent", got, end.numbers(source, count, dtype)


def _exchange_in_a_batch(end: End) -> Checks:
    size = end.group.size
    before, behind = (end.me - 1) % size, (end.me + 1) % size
    for dtype in end.dtypes("send"):
        mine, got = end.to_move(1024, dtype), end.empty(1024, dtype)
        with end.made.batch():
            end.made.send(mine, behind)
            end.made.recv(got, before)
        yield f"what rank {before} sent at the same time, {dtype}", got, end.numbers(before, 1024, dtype)


def _gathers_in_a_batch(end: End) -> Checks:
    for dtype in end.dtypes("all_gather"):
        outputs = [end.empty(count * end.group.size, dtype) for count in (7, 8)]
        inputs = [end.to_move(count, dtype) for count in (7, 8)]
        with end.made.batch():
            for output, mine in zip(outputs, inputs, strict=True):
                end.made.all_gather(output, mine)
        for count, output in zip((7, 8), outputs, strict=True):
            yield f"gather of {count} in a batch, {dtype}", output, torch.cat(end.all_numbers(count, dtype))


def _one_sum_for_all(end: End) -> Checks:
    # Ranks that go on with sums of other bits choose other tokens in the end.
    for dtype in (dtype for dtype in end.dtypes("all_reduce") if dtype.is_floating_point):
        random = torch.Generator().manual_seed(end.me)
        total = torch.randn(65537, generator=random).to(dtype).to(end.group.device)
        end.made.all_reduce(total, total)
        told = end.group.share(total.cpu().view(torch.uint8).numpy().tobytes())
        first = torch.frombuffer(bytearray(told[0]), dtype=dtype)
        yield f"the same bits as rank 0 in a sum of {dtype}", total.cpu(), first


def _many_in_a_row(end: End) -> Checks:
    times = int(math.log(100, end.group.size))  # such a sum is exact in every dtype
    for dtype in end.dtypes("all_reduce"):
        counters = [end.on_device(torch.ones(3).to(dtype)) for _ in range(math.ceil(20 / times))]
        for counter in counters:
            for _ in range(times):
                end.made.all_reduce(counter, counter)
        for counter in counters:  # now: to look at one is to wait for it
            yield f"{times} sums of sums of {dtype}", counter, torch.full((3,), end.group.size**times).to(dtype)


CASES: dict[str, Case] = {
    "all_reduce": _each("all_reduce", _all_reduce),
    "all_reduce_in_place": _each("all_reduce", _all_reduce_in_place),
    "all_gather": _each("all_gather", _all_gather),
    "all_gatherv": _each("all_gatherv", _all_gatherv),
    "reduce_scatter": _each("reduce_scatter", _reduce_scatter),
    "reduce_scatterv": _each("reduce_scatterv", _reduce_scatterv),
    "all_to_all": _each("all_to_all", _all_to_all),
    "broadcast": _each("broadcast", _broadcast),
    "send_and_recv": _each("send", _send),
    "isend_and_recv": _each("isend", _isend),
    "sends_and_receptions_in_a_batch": Case(("send", "recv"), _exchange_in_a_batch),
    "gathers_in_a_batch": Case(("all_gather",), _gathers_in_a_batch),
    "one_sum_for_all_ranks": Case(("all_reduce",), _one_sum_for_all),
    "many_in_a_row": Case(("all_reduce",), _many_in_a_row),
}
"""Name -> the case. Every rank runs them in this order."""
