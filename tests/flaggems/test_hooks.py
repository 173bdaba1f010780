from __future__ import annotations

import subprocess
import sys

import pytest

from sglang_fl import BackendImplKind, OpImpl, Platform
from sglang_fl.ops import CONTRACTS
from sglang_fl_flaggems.hooks import sglang_fl_register_ops


def offered(device_type: str) -> list[OpImpl]:
    platform = Platform(name="acme", device_type=device_type, is_available=lambda: True, in_tree=True)
    return sglang_fl_register_ops(platform)


def test_a_cpu_is_offered_nothing() -> None:
    assert offered("cpu") == []


@pytest.mark.parametrize("device_type", ["cuda", "musa", "npu"])
def test_any_other_device_is_offered_a_kernel_of_our_own_for_every_op_and_flaggems_after_it(device_type: str) -> None:
    by_id: dict[str, dict[str, OpImpl]] = {}
    for impl in offered(device_type):
        by_id.setdefault(impl.impl_id, {})[impl.op] = impl
    own, gems = by_id["flagos.triton"], by_id["flagos.flaggems"]
    assert own.keys() == CONTRACTS.keys()
    assert own.keys() - gems.keys() == {"gemma_rms_norm"}
    for op, impl in gems.items():
        assert impl.kind is own[op].kind is BackendImplKind.DEFAULT
        assert (own[op].priority, impl.priority) == (155, 150)
        assert not impl.traceable
        assert not own[op].traceable


def test_what_is_tuned_for_every_number_of_tokens_stays_out_of_graphs() -> None:
    unsafe = {(impl.op, impl.impl_id) for impl in offered("cuda") if not impl.graph_safe}
    assert unsafe == {("layer_norm", "flagos.flaggems")}


def test_all_that_a_record_may_say_is_overwritten_is_declared_by_our_own() -> None:
    for impl in offered("cuda"):
        if impl.impl_id == "flagos.triton":
            assert set(impl.mutates) == set(CONTRACTS[impl.op].overwritable)


def test_hooks_import_neither_triton_nor_flaggems_nor_torch() -> None:
    program = """
import sys
from sglang_fl import Platform
from sglang_fl_flaggems import hooks
platform = Platform(name="acme", device_type="cuda", is_available=lambda: True, in_tree=True)
assert hooks.sglang_fl_register_ops(platform) and hooks.sglang_fl_register_settings()
print(*({"torch", "triton", "flag_gems", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
