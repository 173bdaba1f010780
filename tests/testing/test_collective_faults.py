"""L5 catches a communicator that gives a rank what it should not have: by the case that is named for it."""

from __future__ import annotations

import os

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
                if input.numel() == 65537 and input.is_floating_point() and input[0] % 1:
                    output[0] += group.rank  # only sums of numbers that are not whole

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


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What the ranks got of the faulty communicator."""
    folder = tmp_path_factory.mktemp("faulty")
    site = third_party(folder, "acme-chip", FAULTY, entry_points={"acme": "acme_chip"})
    tested = subject(platform(name="cpu"), platform="cpu", communicator="accl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        return run_ranks(tested, folder)


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


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_collective_is_caught_by_the_case_named_for_it(ranks: Ranks, case: str) -> None:
    with pytest.raises(AssertionError) as caught:
        suite.test_every_rank_gets_what_it_should(subject(), ranks, case)
    assert FAULTS[case] in str(caught.value)


@pytest.mark.parametrize("case", ["create", "all_reduce_in_place", "reduce_scatterv"])
def test_a_right_one_beside_it_passes(ranks: Ranks, case: str) -> None:
    suite.test_every_rank_gets_what_it_should(subject(), ranks, case)


def test_what_is_not_offered_is_skipped(ranks: Ranks) -> None:
    with pytest.raises(pytest.skip.Exception, match="not offered: all_to_all"):
        suite.test_every_rank_gets_what_it_should(subject(), ranks, "all_to_all")


def test_offering_nothing_is_a_failure() -> None:
    silent = Ranks([dict.fromkeys(CASES, "not offered: anything")] * 2, ["", ""])
    with pytest.raises(AssertionError, match="offers no collective"):
        suite.test_some_collective_is_offered(subject(), silent)
