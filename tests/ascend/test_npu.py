from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sglang_fl.candidates import collect_candidates
from sglang_fl.platforms import unavailability
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl_ascend import hooks, npu
from tests.adapter.releases.sources import Sources
from tests.adapter.releases.wheels import RELEASES, source_folder

PRETENDED = """
__version__ = "2.1.0"

def npu_swiglu(): ...

class npu:
    device_count = staticmethod(lambda: {devices})
    is_available = staticmethod(lambda: {devices} > 0)
    mem_get_info = staticmethod(lambda index: (10 + index, 64 + index))
    get_device_name = staticmethod(lambda index: "Ascend910B3")
"""


@pytest.fixture
def torch_npu(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of this name that finds as many devices as the parameter says."""
    (tmp_path / "torch_npu.py").write_text(PRETENDED.format(devices=request.param))
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("torch_npu", None)


@pytest.fixture
def no_torch_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_torch_npu")
def test_without_torch_npu_neither_the_platform_nor_an_op_is_available() -> None:
    plugins = Plugins()
    plugins.add(Plugin("ascend", "sglang-fl-ascend", ""), hooks)
    reasons = {candidate.unavailable for candidate in collect_candidates(plugins, hooks.ASCEND)}
    assert {unavailability(hooks.ASCEND.is_available), *reasons} == {"torch_npu is not installed"}


@pytest.mark.usefixtures("torch_npu")
@pytest.mark.parametrize("torch_npu", [0], indirect=True)
def test_without_a_device_the_platform_is_not_available() -> None:
    assert hooks.ASCEND.is_available() == "torch_npu finds 0 NPUs that it can use"


@pytest.mark.usefixtures("torch_npu")
@pytest.mark.parametrize("torch_npu", [8], indirect=True)
def test_with_a_device_it_is() -> None:
    assert hooks.ASCEND.is_available() is True
    assert (npu.total_memory(1), npu.used_memory(1), npu.device_name(1)) == (65, 54, "Ascend910B3")


@pytest.mark.usefixtures("torch_npu")
@pytest.mark.parametrize("torch_npu", [8], indirect=True)
def test_an_op_is_available_where_torch_npu_has_its_operators() -> None:
    available = {impl.op: impl.is_available() for impl in hooks.sglang_fl_register_ops(hooks.ASCEND)}
    assert available["silu_and_mul"] is True
    assert available["layer_norm"] is True
    assert available["rms_norm"] == "torch_npu 2.1.0 has no npu_rms_norm and no npu_add_rms_norm"
    assert available["rotary_embedding"] == "torch_npu 2.1.0 has no npu_mrope"


@pytest.mark.usefixtures("torch_npu")
@pytest.mark.parametrize("torch_npu", [8], indirect=True)
def test_an_sdk_that_cannot_be_imported_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    reason = unavailability(hooks.ASCEND.is_available)
    assert reason is not None
    assert "torch_npu" in reason


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_of_sglang_knows_the_device(release: str) -> None:
    known = Sources(source_folder(release)).attributes("sglang.srt.platforms.device_mixin:PlatformEnum")
    assert hooks.ASCEND.device_type.upper() in known
