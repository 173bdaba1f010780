"""A vendor's ``register_ops.py`` for sglang-plugin-FL, adopted as it is."""

from __future__ import annotations

import enum
import json
import logging
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sglang_fl import BackendImplKind, BackendPriority, adopt
from sglang_fl.dispatch.types import OpImpl
from sglang_fl.errors import PluginError
from sglang_fl.ops import CONTRACTS
from sglang_fl.platforms import unavailability
from tests.core.samples import LAYER, candidate, dispatcher, reference, rows, run_python, silu_and_mul
from tests.third_parties import third_party

BACKEND = """
    import torch
    from sglang_fl.dispatch.backends import Backend

    class JadeBackend(Backend):
        @property
        def name(self):
            return "jade"

        def is_available(self):
            return torch.ones(1).device.type == "cpu"

        def silu_and_mul(self, obj, x):
            gate, up = x.chunk(2, dim=-1)
            return torch.nn.functional.silu(gate) * up

        def topk(self, obj, hidden_states, router_logits):
            raise NotImplementedError
"""

REGISTER_OPS = """
    import functools

    from sglang_fl.dispatch.types import BackendImplKind, BackendPriority, OpImpl

    def available_when(fn, is_available):
        @functools.wraps(fn)
        def call(*args, **kwargs):
            return fn(*args, **kwargs)
        call._is_available = is_available
        return call

    def register_builtins(registry):
        from jade_backend import JadeBackend

        backend = JadeBackend()
        registry.register_many([
            OpImpl(op_name=op, impl_id="vendor.jade", kind=BackendImplKind.VENDOR, vendor="jade",
                   fn=available_when(getattr(backend, op), backend.is_available), priority=BackendPriority.VENDOR)
            for op in ("silu_and_mul", "topk")
        ])
"""

HOOKS = """
    from sglang_fl import adopt, hookimpl

    @hookimpl
    def sglang_fl_register_ops(platform):
        return adopt("jade_register_ops:register_builtins")
"""

IMPL = OpImpl("silu_and_mul", "vendor.jade", BackendImplKind.VENDOR, silu_and_mul, "jade", BackendPriority.VENDOR)


def registering(*impls: Any) -> Callable[[Any], None]:
    return lambda registry: registry.register_many(impls)


def with_answer(answer: Callable[[], Any]) -> OpImpl:
    def fn(obj: Any, x: torch.Tensor) -> torch.Tensor:
        return silu_and_mul(obj, x)

    fn._is_available = answer  # type: ignore[attr-defined]
    return replace(IMPL, fn=fn)


def test_a_vendors_files_serve_unchanged_with_one_hook_line(tmp_path: Path) -> None:
    site = third_party(tmp_path, "jade", HOOKS)
    for name, source in {"jade_backend": BACKEND, "jade_register_ops": REGISTER_OPS}.items():
        (site / f"{name}.py").write_text(textwrap.dedent(source))
    program = """
import json, torch
from sglang_fl import call_op
from sglang_fl.session import session
x = torch.randn(3, 8)
made = session()
best = made.dispatcher.select("silu_and_mul").require()[0]
equal = torch.equal(call_op("silu_and_mul", None, x), torch.nn.functional.silu(x[:, :4]) * x[:, 4:])
print(json.dumps([best.impl.impl_id, best.impl.vendor, best.distribution, equal, len(made.plugins.problems)]))
"""
    done = run_python(program, site=site)

    assert json.loads(done.stdout) == ["vendor.jade", "jade", "jade", True, 0], done.stderr
    assert "no contract for topk/vendor.jade: SGLang's own serve" in done.stderr


def test_every_field_keeps_its_meaning() -> None:
    (record,) = adopt(registering(replace(IMPL, priority=120)))

    assert (record.op, record.impl_id, record.kind) == ("silu_and_mul", "vendor.jade", BackendImplKind.VENDOR)
    assert (record.vendor, record.priority, record.fn) == ("jade", 120, silu_and_mul)


def test_a_priority_that_is_not_declared_is_that_of_the_kind() -> None:
    (record,) = adopt(registering(replace(IMPL, priority=0)))
    assert record.priority == BackendPriority.VENDOR


def test_the_kind_may_be_another_frameworks_enum() -> None:
    class TheirKind(str, enum.Enum):
        ANY = "flagos"

    (record,) = adopt(registering(replace(IMPL, kind=TheirKind.ANY, vendor=None)))  # type: ignore[arg-type]
    assert record.kind is BackendImplKind.DEFAULT


def test_impls_may_be_registered_one_by_one() -> None:
    def register_builtins(registry: Any) -> None:
        registry.register_impl(IMPL)
        registry.register_impl(replace(IMPL, impl_id="vendor.jade2"))

    assert [record.impl_id for record in adopt(register_builtins)] == ["vendor.jade", "vendor.jade2"]


@pytest.mark.parametrize(
    ("impl", "reason"),
    [
        (IMPL, None),
        (with_answer(lambda: True), None),
        (with_answer(lambda: False), "its _is_available() says no"),
        (with_answer(lambda: 1 / 0), "asking raised ZeroDivisionError: division by zero"),
    ],
)
def test_the_functions_own_is_available_decides(impl: OpImpl, reason: str | None) -> None:
    (record,) = adopt(registering(impl))
    assert unavailability(record.is_available) == reason


@pytest.mark.parametrize("op", CONTRACTS)
def test_an_adopted_op_may_overwrite_what_its_contract_allows(op: str) -> None:
    (record,) = adopt(registering(replace(IMPL, op_name=op)))
    assert record.mutates == CONTRACTS[op].overwritable


def test_an_op_without_a_contract_is_left_to_sglang_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert adopt(registering(replace(IMPL, op_name="topk"), replace(IMPL, op_name="fused_moe"))) == []
    assert caplog.messages == ["no contract for topk/vendor.jade, fused_moe/vendor.jade: SGLang's own serve"]


def test_what_is_no_implementation_is_an_error_that_names_what_it_lacks() -> None:
    with pytest.raises(PluginError, match=r"found \{'op_name': 'silu_and_mul'\} without op_name"):
        adopt(registering({"op_name": "silu_and_mul"}))


@pytest.mark.parametrize("field", [{"supported_dtypes": {"float16"}}, {"min_arch": "9.0"}])
def test_a_limit_that_was_never_obeyed_is_an_error(field: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=rf"found {next(iter(field))} of silu_and_mul/vendor.jade"):
        adopt(registering(replace(IMPL, **field)))


def test_an_adopted_op_that_is_not_implemented_leaves_the_call_to_the_next() -> None:
    def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        raise NotImplementedError

    (record,) = adopt(registering(replace(IMPL, op_name="rms_norm", fn=rms_norm)))
    x = rows(3, 4)
    chosen = dispatcher(replace(candidate(), impl=record), reference("rms_norm"))
    assert torch.equal(chosen.call("rms_norm", LAYER, x), dispatcher(reference("rms_norm")).call("rms_norm", LAYER, x))
