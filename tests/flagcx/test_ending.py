"""A communicator ends once, in the order that FlagCX wants, and never holds up the process that ends it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.flagcx.conftest import StandIn
from tests.flagcx.ranks import STREAM, Rank, alone, at_every_rank, started

NOTHING = {"comms": 0, "streams": 0, "handles": 0}


def ends(standin: StandIn) -> bool:
    """Does the communicator come to its end? An abort is not waited for."""
    limit = time.monotonic() + 10
    while standin.live()["comms"] and time.monotonic() < limit:
        time.sleep(0.005)
    return standin.live()["comms"] == 0


def use(standin: StandIn, rank: Rank) -> None:
    flagcx, tensor = started(standin, rank), torch.ones(2)
    flagcx.all_reduce(tensor, tensor)
    flagcx.all_reduce(tensor, tensor)
    flagcx.destroy()


def test_everything_made_is_freed(standin: StandIn) -> None:
    at_every_rank(2, lambda rank: use(standin, rank))
    assert standin.live() == NOTHING


def test_a_stream_s_handle_is_made_once_and_freed_after_the_communicator(standin: StandIn) -> None:
    at_every_rank(1, lambda rank: use(standin, rank))
    log = standin.log()
    assert log[log.index("setDevice 0") :] == [
        "setDevice 0",
        "flagcxCommDestroy streams=1",
        f"streamFree {STREAM:#x}",
        "flagcxDeviceHandleFree comms=0 streams=0",
    ]
    assert log.count(f"streamCopy {STREAM:#x}") == 1


def test_the_end_comes_on_the_communicator_s_own_device(standin: StandIn) -> None:
    at_every_rank(2, lambda rank: use(standin, rank))
    assert {"setDevice 0", "setDevice 1"} <= set(standin.log())


def test_it_ends_once(standin: StandIn) -> None:
    flagcx = alone(standin)
    flagcx.destroy()
    flagcx.destroy()
    flagcx.abort()
    assert standin.live() == NOTHING
    assert [line for line in standin.log() if "flagcxComm" in line][1:] == ["flagcxCommDestroy streams=0"]


def test_what_was_aborted_is_not_destroyed(standin: StandIn) -> None:
    flagcx = alone(standin)
    flagcx.abort()
    flagcx.destroy()
    assert ends(standin)
    assert not any("flagcxCommDestroy" in line for line in standin.log())


def test_work_that_does_not_end_is_aborted(standin: StandIn) -> None:
    flagcx, tensor = alone(standin, patience=0.05), torch.zeros(1)
    flagcx.all_reduce(tensor, tensor)
    standin.busy(True)
    flagcx.destroy()
    assert ends(standin)
    assert "flagcxCommAbort streams=1" in standin.log()


def test_an_abort_cuts_the_wait_of_a_destruction_short(standin: StandIn) -> None:
    flagcx, tensor = alone(standin, patience=60), torch.zeros(1)
    flagcx.all_reduce(tensor, tensor)
    standin.busy(True)
    destruction = threading.Thread(target=flagcx.destroy, daemon=True)
    destruction.start()
    flagcx.abort()
    assert ends(standin)
    standin.busy(False)  # what was aborted is no longer under way
    destruction.join(10)
    assert not destruction.is_alive()
    assert [line for line in standin.log() if "flagcxComm" in line][1:] == ["flagcxCommAbort streams=1"]


def test_work_that_ends_in_time_is_waited_for(standin: StandIn) -> None:
    flagcx, tensor = alone(standin, patience=10), torch.zeros(1)
    flagcx.all_reduce(tensor, tensor)
    standin.busy(True)
    threading.Timer(0.05, standin.busy, (False,)).start()
    flagcx.destroy()
    assert "flagcxCommDestroy streams=1" in standin.log()


def test_a_destruction_that_hangs_is_left_behind(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    flagcx = alone(standin, patience=0.05)
    standin.hold("flagcxCommDestroy")
    before = time.monotonic()
    with caplog.at_level(logging.WARNING, "sglang_fl_flagcx"):
        flagcx.destroy()
    assert time.monotonic() - before < 5
    assert "left to the end of the process" in caplog.text
    standin.hold("")
    assert ends(standin)


def test_an_abort_within_a_batch_comes_after_the_batch(standin: StandIn) -> None:
    flagcx, tensor = alone(standin), torch.zeros(1)
    with flagcx.batch():
        flagcx.all_reduce(tensor, tensor)
        flagcx.abort()
        time.sleep(0.05)
        assert standin.live()["comms"] == 1
    assert ends(standin)
    names = [line.split()[0] for line in standin.log()]
    assert names[-3:] == ["flagcxGroupEnd", "setDevice", "flagcxCommAbort"]


def test_the_handle_of_an_aborted_call_is_kept(standin: StandIn) -> None:
    others = set(threading.enumerate())
    flagcx, tensor = alone(standin), torch.zeros(1)
    (ending,) = set(threading.enumerate()) - others
    flagcx.all_reduce(tensor, tensor)
    flagcx.abort()
    ending.join(10)
    assert standin.live() == {"comms": 0, "streams": 1, "handles": 1}


def test_an_abort_does_not_wait(standin: StandIn) -> None:
    flagcx = alone(standin, patience=60)
    standin.hold("flagcxCommAbort")
    before = time.monotonic()
    flagcx.abort()
    assert time.monotonic() - before < 5
    standin.hold("")
    assert ends(standin)


def test_an_abort_frees_a_rank_that_waits_for_another(standin: StandIn) -> None:
    def work(rank: Rank) -> str:
        flagcx, tensor = started(standin, rank), torch.zeros(1)
        if rank.rank == 1:
            return "never called"
        threading.Timer(0.05, flagcx.abort).start()
        with pytest.raises(Exception, match="flagcxRemoteError"):
            flagcx.all_reduce(tensor, tensor)
        return "freed"

    assert at_every_rank(2, work) == ["freed", "never called"]


def test_an_end_that_fails_is_told_of(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    flagcx = alone(standin)
    standin.fail("flagcxCommDestroy", 3)
    flagcx.destroy()
    assert "flagcxInternalError" in caplog.text


AT_EXIT = """
import atexit, sys
from pathlib import Path
from tests.flagcx.conftest import StandIn
from tests.flagcx.ranks import alone

standin = StandIn(Path(sys.argv[1]))
flagcx = alone(standin)
atexit.register(lambda: print(standin.live()["comms"], "left", flush=True))
atexit.register(flagcx.destroy)
if sys.argv[2] == "hangs":
    standin.hold("flagcxCommDestroy")
"""


@pytest.mark.parametrize(("how", "left"), [("ends", "0 left"), ("hangs", "1 left")])
def test_a_process_exits_in_time_however_the_destruction_goes(standin: StandIn, how: str, left: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", AT_EXIT, str(standin.file), how]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, left), done.stderr
