from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
import torch
from pluggy import PluginManager

from sglang_fl import hookspecs
from sglang_fl.ops import CONTRACTS
from sglang_fl.records import BackendImplKind, Platform
from sglang_fl.reference import cpu, hooks


def _platforms() -> dict[str, Platform]:
    return {platform.name: platform for platform in hooks.sglang_fl_register_platforms()}


def test_its_hooks_are_ones_that_exist() -> None:
    manager = PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(hooks)
    manager.check_pending()


@pytest.mark.parametrize("name", ["cpu", "a platform that nobody knows"])
def test_every_platform_has_every_op(name: str) -> None:
    platform = Platform(name=name, device_type="cpu", is_available=lambda: True, in_tree=True)
    impls = hooks.sglang_fl_register_ops(platform)
    assert [impl.op for impl in impls] == sorted(CONTRACTS, key=[impl.op for impl in impls].index)
    for impl in impls:
        assert (impl.impl_id, impl.kind, impl.mutates) == ("reference.torch", BackendImplKind.REFERENCE, ())
        assert impl.is_available() is True
        assert callable(impl.load())


def test_declaring_imports_no_torch() -> None:
    program = (
        "import sys; from sglang_fl.reference import hooks; hooks.sglang_fl_register_ops(None);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_cpu_is_always_there_and_yields_to_any_other_platform() -> None:
    cpu_platform = _platforms()["cpu"]
    assert cpu_platform.is_available() is True
    assert not cpu_platform.in_tree
    assert all(cpu_platform.priority < other.priority for name, other in _platforms().items() if name != "cpu")


def test_the_cpu_has_the_memory_of_this_machine() -> None:
    memory = psutil.virtual_memory()
    assert cpu.total_memory(0) == memory.total
    assert abs(cpu.used_memory(0) - (memory.total - memory.available)) < memory.total / 10


def test_the_cpu_has_a_name() -> None:
    assert cpu.device_name(0).strip()


def test_the_accelerator_is_the_one_torch_is_built_for_and_sglang_keeps_it() -> None:
    built_for = torch.accelerator.current_accelerator()
    others = [platform for name, platform in _platforms().items() if name != "cpu"]
    assert [platform.device_type for platform in others] == ([] if built_for is None else [built_for.type])
    for platform in others:
        assert platform.in_tree
        answer = platform.is_available()
        assert (answer is True) == torch.accelerator.is_available()
        assert answer is True or platform.device_type in answer


def test_an_accelerator_of_torch_becomes_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    platform = _platforms()["xpu"]
    assert (platform.device_type, platform.in_tree, platform.is_available()) == ("xpu", True, True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert "xpu" in str(platform.is_available())


def test_torch_for_the_cpu_alone_leaves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert list(_platforms()) == ["cpu"]
    assert {d.subject: d.found for d in hooks.sglang_fl_diagnose()}["accelerator"].startswith("none")


def test_looking_for_platforms_starts_no_device_runtime() -> None:
    program = (
        "import torch; from sglang_fl.reference import hooks;"
        "[platform.is_available() for platform in hooks.sglang_fl_register_platforms()];"
        "import sys; sys.exit(torch.cuda.is_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_doctor_tells_of_the_accelerator() -> None:
    (told,) = hooks.sglang_fl_diagnose()
    assert told.subject == "accelerator"
    assert told.ok is None


def test_without_torch_there_is_the_cpu_and_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "find_spec", lambda name: None)
    assert list(hooks.sglang_fl_diagnose()) == []
    assert list(_platforms()) == ["cpu"]
