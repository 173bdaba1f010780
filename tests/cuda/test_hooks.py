"""What the backend declares, for whom, and how core chooses among it and its own."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import sglang_fl_cuda
from sglang_fl.ops import CONTRACTS
from sglang_fl.records import BackendImplKind, Platform, always
from sglang_fl.session import Session
from sglang_fl_cuda import hooks
from sglang_fl_cuda.platform import NVIDIA
from tests.cuda.backend import Backend

PACKAGE = Path(sglang_fl_cuda.__file__).parent


def platform(name: str, device_type: str, in_tree: bool = True) -> Platform:
    return Platform(name=name, device_type=device_type, is_available=always, in_tree=in_tree, total_memory=lambda i: 1)


SERVED = (NVIDIA, platform("cuda", "cuda"), platform("ppu", "cuda"))
FOREIGN = (platform("cpu", "cpu", in_tree=False), platform("npu", "npu"), platform("acme", "cuda", in_tree=False))


@pytest.mark.parametrize("one", SERVED, ids=lambda one: one.name)
def test_every_op_is_offered_where_sglang_runs_cuda_under_whatever_name(one: Platform) -> None:
    impls = {impl.op: impl for impl in hooks.sglang_fl_register_ops(one)}
    assert impls.keys() == CONTRACTS.keys()
    for op, impl in impls.items():
        assert (impl.impl_id, impl.kind, impl.vendor) == ("vendor.cuda", BackendImplKind.VENDOR, "cuda")
        assert impl.mutates == CONTRACTS[op].overwritable
        assert impl.graph_safe
    assert hooks.sglang_fl_default_settings(one) == {"prefer": "vendor"}


@pytest.mark.parametrize("one", FOREIGN, ids=lambda one: one.name)
def test_nothing_is_offered_anywhere_else(one: Platform) -> None:
    assert hooks.sglang_fl_register_ops(one) == []
    assert hooks.sglang_fl_default_settings(one) == {}


@pytest.mark.parametrize("op", CONTRACTS)
def test_functions_take_what_the_contract_says(backend: Backend, op: str) -> None:
    promised = [(p.name, p.default) for p in CONTRACTS[op].signature.parameters.values()]
    for function in (backend.fn(op), backend.asked(op)):
        assert [(p.name, p.default) for p in inspect.signature(function).parameters.values()] == promised


def test_the_platform_is_sglangs_own_and_goes_before_cores_record_of_it() -> None:
    (one,) = hooks.sglang_fl_register_platforms()
    assert (one.name, one.device_type, one.in_tree) == ("nvidia", "cuda", True)
    assert one.priority > 50  # BackendPriority.REFERENCE, which core's own record has


@pytest.mark.parametrize(
    ("environ", "name"), [({}, "nvidia"), ({"SGLANG_FL_PLATFORM": "cuda"}, "cuda")], ids=["unasked", "asked for core's"]
)
def test_a_session_on_cuda_takes_the_vendors_ops_by_the_wheels_settings(
    environ: Mapping[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    session = Session.start({**environ, "SGLANG_FL_DISABLED_PLUGINS": "ascend"})
    assert session.platform.name == name
    assert session.settings.prefer == "vendor"
    assert "sglang-fl-cuda" in str(session.settings.origin("prefer"))
    for op in CONTRACTS:
        assert session.dispatcher.select(op).require()[0].impl.impl_id == "vendor.cuda"


def test_another_preference_is_one_setting_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    session = Session.start({"SGLANG_FL_PREFER": "reference", "SGLANG_FL_DISABLED_PLUGINS": "ascend"})
    assert session.dispatcher.select("rms_norm").require()[0].impl.impl_id == "reference.torch"


def test_the_yaml_file_tells_how_to_have_it_otherwise() -> None:
    text = (PACKAGE / "nvidia.yaml").read_text(encoding="utf-8")
    assert "prefer: flagos" in text
    assert "SGLANG_FL_PREFER=flagos" in text


def test_declaring_and_asking_make_no_cuda_context_and_import_no_kernel() -> None:
    program = """
import sys
from sglang_fl_cuda import hooks
assert "torch" not in sys.modules
(platform,) = hooks.sglang_fl_register_platforms()
impls = hooks.sglang_fl_register_ops(platform)
hooks.sglang_fl_default_settings(platform)
assert "torch" not in sys.modules
platform.is_available()
[impl.is_available() for impl in impls]
import torch
found = {"sgl_kernel", "sglang", "flashinfer", "triton"} & set(sys.modules)
sys.exit(f"{found} {torch.cuda.is_initialized()}" if found or torch.cuda.is_initialized() else 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_one_module_alone_imports_sglang_and_sgl_kernel_and_that_inside_functions() -> None:
    importers = {}
    for file in PACKAGE.glob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        at_import = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in ("sglang", "sgl_kernel"):
                importers.setdefault(file.name, []).append(id(node) in at_import)
    assert list(importers) == ["kernels.py"]
    assert not any(importers["kernels.py"])
