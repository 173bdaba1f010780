"""L5 catches a communicator that gives a rank what it should not have: by the case that is named for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sglang_fl.testing import suite
from sglang_fl.testing.collectives.cases import CASES
from sglang_fl.testing.collectives.ranks import Ranks, run_ranks
from tests.third_parties import third_party

from .subjects import platform, subject

FAULTY = """
    import os

    import torch

    from sglang_fl import Communicator, hookimpl


    def create(group):
        from sglang_fl.reference.communicator import TorchCollectives

        class Faulty(TorchCollectives):
            dtypes = {name: of for name, of in TorchCollectives.dtypes.items() if name != "all_to_all"}

            def all_reduce(self, output, input):
                super().all_reduce(input, input)
                output.copy_(input)

            def reduce_scatter(self, output, input):
                super().reduce_scatter(output, input.flip(0))

            def broadcast(self, tensor, source):
                super().broadcast(tensor, 0)

            def all_gather(self, output, input):
                super().all_gather(output, input)
                if output.dtype == torch.int8 and input.numel() > 1024:
                    output[-1] = 0

            def all_gatherv(self, output, input, sizes):
                super().all_gatherv(output, input, sizes)
                input.zero_()

            def send(self, tensor, destination):
                short = tensor.bfloat16() if tensor.is_floating_point() else tensor
                super().send(short.to(tensor.dtype), destination)

            def isend(self, tensor, destination):
                os._exit(3)

            def abort(self):
                raise RuntimeError("it is destroyed already")

        return Faulty(group)


    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="accl", create=create, vendor="acme")]
"""

CARELESS = """
    import torch
    import torch.distributed as dist

    from sglang_fl import Communicator, hookimpl


    def create(group):
        from sglang_fl.reference.communicator import TorchCollectives

        class Careless(TorchCollectives):
            def all_reduce(self, output, input):
                narrow = input.bfloat16() if input.dtype == torch.float32 else input.clone()
                super().all_reduce(narrow, narrow)
                output.copy_(narrow)
                if output is input and output.is_floating_point():
                    output[0] += group.rank

            def reduce_scatter(self, output, input):
                narrow, part = (one.float() if one.dtype == torch.float64 else one for one in (input, output))
                super().reduce_scatter(part, narrow)
                output.copy_(part)

            def reduce_scatterv(self, output, input, sizes):
                rounded, part = (one.double() if one.dtype == torch.int64 else one for one in (input, output))
                super().reduce_scatterv(part, rounded, sizes)
                output.copy_(part)

            def broadcast(self, tensor, source):
                dist.broadcast(tensor, source, group=self._group)

            def send(self, tensor, destination):
                if self._batch is None:
                    dist.send(tensor, destination, group=self._group)
                else:
                    super().send(tensor, destination)

            def recv(self, tensor, source):
                if self._batch is None:
                    dist.recv(tensor, source, group=self._group)
                else:
                    super().recv(tensor, source)

            def isend(self, tensor, destination):
                return dist.isend(tensor, destination, group=self._group)

            def all_gather(self, output, input):
                super().all_gather(output, input)
                parts = output.chunk(2)
                output.copy_(torch.cat([parts[(rank - dist.get_rank() + group.rank) % 2] for rank in range(2)]))

        return Careless(group)


    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="accl", create=create, vendor="acme")]
"""
"""Loses bits of sums, and takes ranks of the group for those of the world."""

RIGHT = """
    import torch

    from sglang_fl import Communicator, hookimpl

    BYTE = {torch.float8_e4m3fn, torch.float8_e5m2, torch.bool}
    UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
    COMPLEX = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


    def create(group):
        from sglang_fl.reference.communicator import TorchCollectives

        more = {*BYTE, *UNSIGNED, *COMPLEX, torch.int16}

        class Right(TorchCollectives):
            dtypes = {name: of | more for name, of in TorchCollectives.dtypes.items()}

            def all_reduce(self, output, input):
                total = wide(input)
                super().all_reduce(total, total)
                output.copy_(narrow(total, output.dtype))

            def reduce_scatter(self, output, input):
                part = wide(output)
                super().reduce_scatter(part, wide(input))
                output.copy_(narrow(part, output.dtype))

            def reduce_scatterv(self, output, input, sizes):
                unit = 2 if input.is_complex() else 1
                part = wide(output)
                super().reduce_scatterv(part, wide(input), [unit * size for size in sizes])
                output.copy_(narrow(part, output.dtype))

            def all_gather(self, output, input):
                super().all_gather(bytes_of(output), bytes_of(input))

            def all_gatherv(self, output, input, sizes):
                super().all_gatherv(bytes_of(output), bytes_of(input), [size * input.itemsize for size in sizes])

            def all_to_all(self, output, input):
                super().all_to_all(bytes_of(output), bytes_of(input))

            def broadcast(self, tensor, source):
                super().broadcast(bytes_of(tensor), source)

            def send(self, tensor, destination):
                super().send(bytes_of(tensor), destination)

            def recv(self, tensor, source):
                super().recv(bytes_of(tensor), source)

            def isend(self, tensor, destination):
                return super().isend(bytes_of(tensor), destination)

        return Right(group)


    def bytes_of(tensor):
        return tensor.view(torch.uint8)


    def wide(tensor):
        if tensor.dtype in COMPLEX:
            return tensor.clone().view(COMPLEX[tensor.dtype])
        if tensor.dtype in UNSIGNED:
            return tensor.clone().view(UNSIGNED[tensor.dtype]).long()
        if tensor.dtype == torch.int16:
            return tensor.long()
        return tensor.float() if tensor.dtype in BYTE else tensor.clone()


    def narrow(total, dtype):
        if dtype in UNSIGNED:
            return total.to(UNSIGNED[dtype]).view(dtype)
        return total.view(dtype) if dtype in COMPLEX else total.to(dtype)


    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="accl", create=create, vendor="acme")]
"""
"""Takes every dtype that tensors of a model may have: gloo adds and moves few of them itself."""


WITHOUT_A_HOST = """
    import os
    import sys

    from sglang_fl import Communicator, hookimpl

    if sys.argv[0].endswith("host.py"):
        print("no store today", flush=True)
        os._exit(3)


    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="accl", create="sglang_fl.reference.communicator:create", vendor="acme")]
"""


def ranks_on(source: str, folder: Path) -> Ranks:
    """What the ranks got of the communicator in ``source``."""
    site = third_party(folder, "acme-chip", source, entry_points={"acme": "acme_chip"})
    tested = subject(platform(name="cpu"), platform="cpu", communicator="accl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        return run_ranks(tested, folder)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What the ranks got of the faulty communicator."""
    return ranks_on(FAULTY, tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What the ranks got of the careless communicator."""
    return ranks_on(CARELESS, tmp_path_factory.mktemp("careless"))


FAULTS = {
    "all_reduce": "the input, which stays,",
    "reduce_scatter": "a part of the sum of",
    "broadcast": "what rank 1 has",
    "all_gather": "all parts of 65537 torch.int8: element 131073 is 0",
    "all_gatherv": "the input, which stays,",
    "send_and_recv": "what rank 1 sent of 7 torch.float16: element 0",
    "isend_and_recv": "it ended, or hung, after send_and_recv",
}
"""Case -> what it must tell."""

CARELESSNESS = {
    "all_reduce": "the sum of 1 torch.float32: element 0",
    "one_sum_for_all_ranks": "rank 1: the same bits as rank 0 in a sum of torch.bfloat16: element 0",
    "reduce_scatter": "a part of the sum of 1 torch.float64: element 0",
    "reduce_scatterv": "torch.int64: element 0",
    "all_gather": "all parts of 1 ",
    "broadcast": "in broadcast",
    "send_and_recv": "in send",
    "isend_and_recv": "in isend",
}
"""Case -> what it must tell."""


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_collective_is_caught_by_the_case_named_for_it(ranks: Ranks, case: str) -> None:
    with pytest.raises(AssertionError) as caught:
        suite.test_every_rank_gets_what_it_should(subject(), ranks, case)
    assert FAULTS[case] in str(caught.value)


@pytest.mark.parametrize("case", CARELESSNESS)
def test_sums_that_lose_bits_and_ranks_of_another_group_are_caught(careless: Ranks, case: str) -> None:
    with pytest.raises(AssertionError) as caught:
        suite.test_every_rank_gets_what_it_should(subject(), careless, case)
    assert CARELESSNESS[case] in str(caught.value)


@pytest.mark.parametrize("case", ["create", "all_reduce_in_place", "reduce_scatterv"])
def test_a_right_one_beside_it_passes(ranks: Ranks, case: str) -> None:
    suite.test_every_rank_gets_what_it_should(subject(), ranks, case)


def test_right_collectives_of_every_dtype_pass(tmp_path: Path) -> None:
    right = ranks_on(RIGHT, tmp_path)
    for case in ("create", *CASES, "destroy"):
        suite.test_every_rank_gets_what_it_should(subject(), right, case)


def test_what_ended_the_host_of_the_store_is_told(tmp_path: Path) -> None:
    problem = ranks_on(WITHOUT_A_HOST, tmp_path).problem("create")
    assert problem is not None
    assert "the host of their store has ended before them" in problem
    assert "no store today" in problem


def test_what_is_not_offered_is_skipped(ranks: Ranks) -> None:
    with pytest.raises(pytest.skip.Exception, match="not offered: all_to_all"):
        suite.test_every_rank_gets_what_it_should(subject(), ranks, "all_to_all")


def test_offering_nothing_is_a_failure() -> None:
    silent = Ranks([dict.fromkeys(CASES, "not offered: anything")] * 2, ["", ""])
    with pytest.raises(AssertionError, match="offers no collective"):
        suite.test_some_collective_is_offered(subject(), silent)
