"""torch's current stream is what FlagCX runs on, through handles of FlagCX's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.library import Library
from sglang_fl_flagcx.streams import Streams, native_stream
from tests.flagcx.conftest import StandIn


def test_each_stream_has_one_handle(standin: StandIn) -> None:
    natives = iter([0, 0x10, 0, 0x10, 0x20])
    streams = Streams(Library.load(standin.file), lambda: next(natives))
    first, second, *again, third = [streams.current() for _ in range(5)]
    assert again == [first, second]
    assert len({first, second, third}) == 3
    assert standin.log() == ["flagcxDeviceHandleInit", "streamCopy (nil)", "streamCopy 0x10", "streamCopy 0x20"]


def test_all_handles_are_freed(standin: StandIn) -> None:
    natives = iter([0x10, 0x20])
    streams = Streams(Library.load(standin.file), lambda: next(natives))
    streams.current(), streams.current()
    assert standin.live() == {"comms": 0, "streams": 2, "handles": 1}
    streams.free()
    assert standin.live() == {"comms": 0, "streams": 0, "handles": 0}


def test_streams_are_idle_when_none_has_work(standin: StandIn) -> None:
    streams = Streams(Library.load(standin.file), lambda: 0x10)
    standin.busy(True)
    assert streams.are_idle()
    streams.current()
    assert not streams.are_idle()
    standin.busy(False)
    assert streams.are_idle()


def test_a_device_that_refuses_is_an_error(standin: StandIn) -> None:
    streams = Streams(Library.load(standin.file), lambda: 0x10)
    standin.fail("streamCopy", 1)
    with pytest.raises(FlagCXError, match="streamCopy; found flagcxUnhandledDeviceError"):
        streams.current()
    assert streams.current()


@pytest.mark.parametrize("device_type", ["cuda", "npu", "musa", "mlu"])
def test_the_native_handle_is_read_by_the_device_s_name(device_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def current_stream(device: object) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(**{f"{device_type}_stream": 0x30})

    modules = {device_type: SimpleNamespace(current_stream=current_stream)}
    monkeypatch.setattr(torch, "get_device_module", modules.__getitem__)
    device = SimpleNamespace(type=device_type, index=1)
    assert native_stream(device)() == 0x30
    assert asked == [device]
