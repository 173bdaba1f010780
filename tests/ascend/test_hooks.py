from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sglang_fl.candidates import collect_candidates
from sglang_fl.ops import CONTRACTS
from sglang_fl.platforms import choose_platform
from sglang_fl.plugins import Offer, Plugin, Plugins
from sglang_fl.records import BackendImplKind, Platform, Setting
from sglang_fl.reference import hooks as reference
from sglang_fl.settings import Settings, load_settings
from sglang_fl_ascend import hooks, limits

CPU = Platform(name="cpu", device_type="cpu", is_available=lambda: True, in_tree=True)
OURS = "sglang-fl-ascend"


@pytest.fixture
def plugins() -> Plugins:
    loaded = Plugins()
    loaded.add(Plugin("ascend", OURS, "0.1"), hooks)
    assert loaded.problems == []
    return loaded


def test_declaring_imports_no_sdk() -> None:
    program = (
        "import sys; from sglang_fl_ascend import hooks; (ascend,) = hooks.sglang_fl_register_platforms();"
        "hooks.sglang_fl_register_ops(ascend); hooks.sglang_fl_default_settings(ascend);"
        "sys.exit(not sys.modules.keys().isdisjoint({'torch', 'torch_npu'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_op_is_offered_on_npus_by_its_signature_alone(plugins: Plugins) -> None:
    candidates = collect_candidates(plugins, hooks.ASCEND)
    assert plugins.problems == []
    assert {candidate.impl.op for candidate in candidates} == set(CONTRACTS)
    for impl in (candidate.impl for candidate in candidates):
        assert (impl.impl_id, impl.kind, impl.vendor) == ("vendor.ascend", BackendImplKind.VENDOR, "ascend")
        assert (impl.mutates, impl.graph_safe, impl.traceable) == ((), True, True)
        assert impl.load_accepts() is getattr(limits, impl.op)


def test_an_npu_is_served_whoever_offers_it_as_a_platform() -> None:
    by_core = Platform(name="npu", device_type="npu", is_available=lambda: True, in_tree=True)
    assert hooks.sglang_fl_register_ops(by_core) == hooks.sglang_fl_register_ops(hooks.ASCEND)
    assert hooks.sglang_fl_default_settings(by_core) == hooks.sglang_fl_default_settings(hooks.ASCEND)


def test_another_platform_gets_nothing() -> None:
    assert hooks.sglang_fl_register_ops(CPU) == ()
    assert hooks.sglang_fl_default_settings(CPU) == {}


def test_the_platform_goes_before_core_s_own_and_yields_where_there_is_no_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    of_core, ours = Plugin("reference", "sglang-fl-core", ""), Plugin("ascend", OURS, "")
    npu = Platform(name="npu", device_type="npu", is_available=lambda: True, in_tree=True, priority=50)
    offers = [Offer(record, of_core) for record in (*reference.sglang_fl_register_platforms(), npu)]
    offers += [Offer(record, ours) for record in hooks.sglang_fl_register_platforms()]
    assert choose_platform(offers, None, "").record is npu
    monkeypatch.setattr(hooks.npu, "find_spec", lambda name: True)
    monkeypatch.setattr(hooks.npu, "_torch_npu", _TorchNpu)
    assert choose_platform(offers, None, "").record is hooks.ASCEND


class _TorchNpu:
    class npu:
        @staticmethod
        def is_available() -> bool:
            return True


def test_sglang_keeps_the_device() -> None:
    (ascend,) = hooks.sglang_fl_register_platforms()
    assert (ascend.name, ascend.device_type, ascend.in_tree) == ("ascend", "npu", True)
    assert ascend.distributed_backend == "hccl"


def test_the_blacklist_is_flaggems_s_where_that_is_installed() -> None:
    declared = Setting(key="flagos_blacklist", type=tuple[str, ...], default=(), help="a list")
    settings = _settings([("sglang-fl-flaggems", declared)])
    assert len(settings.of_backends["flagos_blacklist"]) == 14
    assert str(settings.origin("flagos_blacklist")) == "defaults of sglang-fl-ascend: flagos_blacklist"


def test_without_flaggems_the_blacklist_is_left_out() -> None:
    assert dict(_settings([]).of_backends) == {}


def test_the_user_s_blacklist_goes_before_ours() -> None:
    declared = Setting(key="flagos_blacklist", type=tuple[str, ...], default=(), help="a list")
    settings = _settings([("sglang-fl-flaggems", declared)], {"SGLANG_FL_FLAGOS_BLACKLIST": "mm"})
    assert settings.of_backends["flagos_blacklist"] == ("mm",)


def _settings(declared: list[tuple[str, Setting]], environ: dict[str, str] | None = None) -> Settings:
    defaults: Any = hooks.sglang_fl_default_settings(hooks.ASCEND)
    return load_settings(environ or {}, declared, [(OURS, defaults)])
