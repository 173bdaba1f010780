from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

import sglang_fl
from sglang_fl import SelectionPolicy, call_op, resolve_op
from sglang_fl.errors import DispatchError, SettingsError
from sglang_fl.session import session

from ..third_parties import third_party
from .samples import LAYER, run_python

HEAVY = ("torch", "pydantic", "pluggy", "yaml", "rich", "typer", "sglang", "importlib.metadata", "asyncio")


def test_importing_the_package_imports_nothing_that_takes_time() -> None:
    program = f"import sys, json, sglang_fl; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    assert json.loads(run_python(program).stdout) == []


def test_the_package_has_the_names_that_it_promises_and_each_is_where_it_is_defined() -> None:
    assert set(sglang_fl.__all__) == set(sglang_fl._HOMES)
    for name, home in sglang_fl._HOMES.items():
        assert getattr(sglang_fl, name) is getattr(importlib.import_module(f"sglang_fl.{home}"), name)


def test_the_public_names_are_those_of_the_design() -> None:
    assert {"call_op", "resolve_op", "OpImpl", "BackendImplKind", "BackendPriority", "SelectionPolicy"} <= set(
        sglang_fl.__all__
    )


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sglang_fl' has no attribute 'call_ops'"):
        sglang_fl.call_ops  # noqa: B018
    with pytest.raises(ImportError):
        from sglang_fl import call_ops  # noqa: F401


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_PLATFORM", "cpu")


@pytest.mark.parametrize("ask", [lambda: call_op("rmsnorm", None, torch.ones(1)), lambda: resolve_op("rmsnorm")])
def test_an_unknown_op_is_an_error_with_the_nearest_name(ask) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DispatchError, match=r"the op 'rmsnorm'; found no such op. To do: did you mean 'rms_norm'"):
        ask()


def test_an_op_is_called_with_its_own_signature() -> None:
    x, residual = torch.randn(3, 4), torch.randn(3, 4)
    y, total = call_op("rms_norm", LAYER, x.clone(), residual=residual.clone())
    assert torch.equal(total, x + residual)
    wanted = total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + 1e-6) * LAYER.weight
    assert torch.allclose(y, wanted)


def test_what_is_resolved_computes_what_is_called() -> None:
    x = torch.randn(3, 8)
    with SelectionPolicy(prefer="reference"):
        assert torch.equal(resolve_op("silu_and_mul")(None, x), call_op("silu_and_mul", None, x))


def test_a_process_has_one_session() -> None:
    assert session() is session()


def test_bad_settings_are_an_error_at_the_first_call() -> None:
    program = (
        "from sglang_fl import resolve_op\nfrom sglang_fl.errors import SettingsError\n"
        "try:\n    resolve_op('rms_norm')\nexcept SettingsError as error:\n    print(error.do)"
    )
    assert run_python(program, SGLANG_FL_PREFER="vendr").stdout == "did you mean 'vendor'?\n"
    assert issubclass(SettingsError, Exception)


SPAWN = """
import multiprocessing, sys
import torch
from sglang_fl import SelectionPolicy, call_op

def call(policy):
    with policy:
        return call_op("silu_and_mul", None, torch.ones(1, 4)).sum().item()

if __name__ == "__main__":
    call(SelectionPolicy())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(call, [SelectionPolicy(prefer="vendor"), SelectionPolicy(prefer="reference")]))
"""
TWICE = """
from sglang_fl import BackendImplKind, OpImpl, hookimpl

@hookimpl
def sglang_fl_register_ops(platform):
    return [OpImpl(op="silu_and_mul", impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme", fn=zeros)]

def zeros(obj, x):
    return x[..., ::2] * 0
"""


def test_a_spawned_child_has_the_same_plugins_and_takes_a_policy_along(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    site = third_party(tmp_path, "acme-chip", TWICE)
    done = run_python(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", site=site)
    zeros, reference = json.loads(done.stdout or done.stderr)
    assert (zeros, round(reference, 3)) == (0.0, 1.462)
