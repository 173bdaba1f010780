"""What FlagCX is asked for each collective, and what comes of it, between ranks on the stand-in."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_fl_flagcx import communicator
from sglang_fl_flagcx.abi import ReduceOp
from sglang_fl_flagcx.communicator import COLLECTIVES, DTYPES, FlagCX
from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.options import Options
from tests.flagcx.conftest import StandIn
from tests.flagcx.ranks import STREAM, Rank, alone, at_every_rank, collectively

# flagcxDataType_t, as flagcx.h numbers it.
NUMBERS = {
    torch.int8: 0,
    torch.uint8: 1,
    torch.int32: 2,
    torch.uint32: 3,
    torch.int64: 4,
    torch.uint64: 5,
    torch.float16: 6,
    torch.float32: 7,
    torch.float64: 8,
    torch.bfloat16: 9,
}
ON_STREAM = f"stream={STREAM:#x}"


def ramp(rank: int, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Small whole numbers, exact in every dtype, others in each rank."""
    return torch.arange(1 + rank, 1 + rank + count).to(dtype)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_all_reduce_sums_every_dtype_that_flagcx_has(standin: StandIn, dtype: torch.dtype) -> None:
    def work(flagcx: FlagCX, rank: int) -> torch.Tensor:
        output = torch.zeros(5, dtype=dtype)
        flagcx.all_reduce(output, ramp(rank, 5, dtype))
        return output

    for output in collectively(standin, 2, work):
        assert output.tolist() == [3, 5, 7, 9, 11]
    assert f"flagcxAllReduce count=5 dtype={NUMBERS[dtype]} op=0 in_place=0 {ON_STREAM}" in standin.log()


def test_the_dtypes_are_all_that_flagcx_has() -> None:
    assert {dtype: int(number) for dtype, number in DTYPES.items()} == NUMBERS


@pytest.mark.parametrize(
    ("op", "number", "expected"),
    [
        (ReduceOp.SUM, 0, [4.0, 6.0]),
        (ReduceOp.PRODUCT, 1, [3.0, 8.0]),
        (ReduceOp.MAX, 2, [3.0, 4.0]),
        (ReduceOp.MIN, 3, [1.0, 2.0]),
        (ReduceOp.AVERAGE, 4, [2.0, 3.0]),
    ],
)
def test_every_reduction_is_the_one_asked_for(
    standin: StandIn, op: ReduceOp, number: int, expected: list[float]
) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]][rank])
        flagcx.all_reduce(tensor, tensor, op)
        return tensor.tolist()

    assert collectively(standin, 2, work) == [expected, expected]
    assert f"flagcxAllReduce count=2 dtype=7 op={number} in_place=1 {ON_STREAM}" in standin.log()


def test_all_gather_puts_the_parts_by_rank(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[int]:
        output = torch.zeros(6, dtype=torch.int64)
        flagcx.all_gather(output, ramp(10 * rank, 2, torch.int64))
        return output.tolist()

    assert collectively(standin, 3, work) == [[1, 2, 11, 12, 21, 22]] * 3
    assert f"flagcxAllGather count=2 dtype=4 {ON_STREAM}" in standin.log()


def test_reduce_scatter_gives_each_rank_its_part(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        output = torch.zeros(2)
        flagcx.reduce_scatter(output, ramp(rank, 4))
        return output.tolist()

    assert collectively(standin, 2, work) == [[3.0, 5.0], [7.0, 9.0]]
    assert f"flagcxReduceScatter count=2 dtype=7 op=0 {ON_STREAM}" in standin.log()


def test_all_to_all_exchanges_equal_parts(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[int]:
        output = torch.zeros(4, dtype=torch.int32)
        flagcx.all_to_all(output, torch.tensor([0, 1, 2, 3], dtype=torch.int32) + 10 * rank)
        return output.tolist()

    assert collectively(standin, 2, work) == [[0, 1, 10, 11], [2, 3, 12, 13]]
    assert f"flagcxAlltoAll count=2 dtype=2 {ON_STREAM}" in standin.log()


def test_broadcast_takes_the_source_s(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[int]:
        tensor = torch.full((3,), rank, dtype=torch.uint8)
        flagcx.broadcast(tensor, 2)
        return tensor.tolist()

    assert collectively(standin, 3, work) == [[2, 2, 2]] * 3
    assert f"flagcxBroadcast count=3 dtype=1 root=2 {ON_STREAM}" in standin.log()


def test_what_is_sent_is_received(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        tensor = ramp(rank, 3, torch.bfloat16)
        if rank == 0:
            flagcx.send(tensor, 1)
        else:
            flagcx.recv(tensor, 0)
        return tensor.tolist()

    assert collectively(standin, 2, work) == [[1.0, 2.0, 3.0]] * 2
    log = standin.log()
    assert f"flagcxSend count=3 dtype=9 peer=1 {ON_STREAM}" in log
    assert f"flagcxRecv count=3 dtype=9 peer=0 {ON_STREAM}" in log


SIZES = st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(any)
EACH_EXAMPLE_APART = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EACH_EXAMPLE_APART
@given(sizes=SIZES)
def test_all_gatherv_takes_parts_of_any_size(standin: StandIn, sizes: list[int]) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        output = torch.zeros(sum(sizes))
        flagcx.all_gatherv(output, torch.full((sizes[rank],), float(rank)), sizes)
        return output.tolist()

    expected = [float(rank) for rank, size in enumerate(sizes) for _ in range(size)]
    assert collectively(standin, len(sizes), work) == [expected] * len(sizes)


@EACH_EXAMPLE_APART
@given(sizes=SIZES)
def test_reduce_scatterv_gives_parts_of_any_size(standin: StandIn, sizes: list[int]) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        output = torch.zeros(sizes[rank])
        flagcx.reduce_scatterv(output, ramp(rank, sum(sizes)), sizes)
        return output.tolist()

    total = sum(ramp(rank, sum(sizes)) for rank in range(len(sizes)))
    expected = [part.tolist() for part in torch.split(torch.as_tensor(total), sizes)]
    assert collectively(standin, len(sizes), work) == expected
    ends = list(accumulate(sizes))
    assert ends[-1] == sum(len(part) for part in expected)


def test_a_batch_issues_its_calls_together(standin: StandIn) -> None:
    def work(flagcx: FlagCX, rank: int) -> list[float]:
        mine, theirs = torch.full((2,), float(rank)), torch.full((2,), -1.0)
        with flagcx.batch():
            flagcx.recv(theirs, 1 - rank)
            flagcx.send(mine, 1 - rank)
            assert theirs.tolist() == [-1.0, -1.0]
        return theirs.tolist()

    assert collectively(standin, 2, work) == [[1.0, 1.0], [0.0, 0.0]]


def test_a_batch_that_raises_is_ended_and_the_exception_passes(standin: StandIn) -> None:
    flagcx = alone(standin)
    with pytest.raises(KeyError), flagcx.batch():
        raise KeyError
    assert standin.log()[-2:] == ["flagcxGroupStart depth=0", "flagcxGroupEnd depth=1 queued=0"]


def test_a_failure_at_a_batch_s_end_is_raised(standin: StandIn) -> None:
    flagcx = alone(standin)
    standin.fail("flagcxGroupEnd", 5)
    with pytest.raises(FlagCXError, match=r"flagcxGroupEnd; found flagcxInvalidUsage \(5\)"), flagcx.batch():
        pass


def test_a_failure_carries_flagcx_s_own_words(standin: StandIn) -> None:
    flagcx, tensor = alone(standin), torch.zeros(1)
    standin.fail("flagcxAllReduce", 5)
    with pytest.raises(FlagCXError) as caught:
        flagcx.all_reduce(tensor, tensor)
    assert caught.value.asked == "flagcxAllReduce"
    words = "flagcxInvalidUsage (5), the stand-in's words, last error: the stand-in's last words"
    assert caught.value.found == words
    assert caught.value.who == f"FlagCX 1.2.3 ({standin.file})"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bool, torch.int16, torch.complex64], ids=str)
def test_a_dtype_that_flagcx_has_not_is_refused_with_the_reason(standin: StandIn, dtype: torch.dtype) -> None:
    flagcx, tensor = alone(standin), torch.zeros(1, dtype=dtype)
    standin.log()
    with pytest.raises(FlagCXError, match=f"a collective of {dtype}; found it has int8, uint8, .*bfloat16"):
        flagcx.all_reduce(tensor, tensor)
    assert dtype not in flagcx.dtypes["all_reduce"]
    assert standin.log() == []


def test_every_collective_that_is_offered_is_there_with_its_dtypes(standin: StandIn) -> None:
    flagcx = alone(standin)
    assert flagcx.dtypes == {name: frozenset(NUMBERS) for name in COLLECTIVES}
    assert all(callable(getattr(flagcx, name)) for name in COLLECTIVES)
    assert not hasattr(flagcx, "isend")


def test_no_collective_may_follow_the_end(standin: StandIn) -> None:
    for end in ("destroy", "abort"):
        flagcx, tensor = alone(standin), torch.zeros(1)
        getattr(flagcx, end)()
        with pytest.raises(FlagCXError, match="it has been ended"):
            flagcx.all_reduce(tensor, tensor)
        with pytest.raises(FlagCXError, match="it has been ended"), flagcx.batch():
            pass


class TestCreate:
    @pytest.fixture(autouse=True)
    def _streams_without_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(communicator, "native_stream", lambda device: lambda: STREAM)

    def options(self, standin: StandIn, **modes: str) -> Options:
        return Options(standin.file, modes, None)

    def test_all_ranks_meet_by_the_first_one_s_id(self, standin: StandIn) -> None:
        made = at_every_rank(2, lambda rank: communicator.create(self.options(standin), rank))
        log = standin.log()
        assert log.count("flagcxGetUniqueId") == 1
        # Every one of the 256 bytes arrives, zeros among them: byte 1 is 1, and the last four count the ids.
        assert sorted(line for line in log if "InitRank" in line) == [
            "flagcxCommInitRank size=2 rank=0 first=1 last=1",
            "flagcxCommInitRank size=2 rank=1 first=1 last=1",
        ]
        assert [flagcx.graph_safe for flagcx in made] == [True, True]
        assert standin.live()["comms"] == 2

    def test_a_mode_of_flagcx_s_is_set_for_it_and_keeps_it_out_of_graphs(
        self, standin: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FLAGCX_USE_TUNER", "0")
        options = self.options(standin, FLAGCX_USE_TUNER="1")
        (flagcx,) = at_every_rank(1, lambda rank: communicator.create(options, rank))
        assert not flagcx.graph_safe
        assert communicator.os.environ["FLAGCX_USE_TUNER"] == "1"

    def test_a_device_other_than_cuda_stays_out_of_graphs(self, standin: StandIn) -> None:
        def work(rank: Rank) -> Any:
            rank.device = torch.device("privateuseone", 0)
            return communicator.create(self.options(standin), rank)

        (flagcx,) = at_every_rank(1, work)
        assert not flagcx.graph_safe

    @pytest.mark.parametrize("function", ["flagcxGetUniqueId", "flagcxCommInitRank", "flagcxIsHomoComm"])
    def test_a_start_that_fails_raises_and_leaves_nothing(self, standin: StandIn, function: str) -> None:
        standin.fail(function, 2)
        with pytest.raises(FlagCXError, match=f"{function}; found flagcxSystemError"):
            at_every_rank(1, lambda rank: communicator.create(self.options(standin), rank))
        assert standin.live() == {"comms": 0, "streams": 0, "handles": 0}
