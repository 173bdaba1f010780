from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from sglang_fl.records import AtenOp, BackendImplKind, BackendPriority, Communicator, OpImpl, Platform, Setting

from .samples import for_all, impl, silu_and_mul


def platform(**fields: Any) -> Platform:
    return Platform(**{"name": "acme", "device_type": "acme", "is_available": bool, "total_memory": abs, **fields})


def communicator(**fields: Any) -> Communicator:
    return Communicator(**{"name": "acme", "create": "acme:Communicator", **fields})


def setting(**fields: Any) -> Setting:
    return Setting(**{"key": "acme", "type": bool, "default": False, "help": "whether", **fields})


def aten_op(**fields: Any) -> AtenOp:
    return AtenOp(**{"name": "add.Tensor", "by": "acme.add", "replaced": True, "reason": "it is faster", **fields})


@pytest.mark.parametrize("kind", BackendImplKind)
def test_the_kind_gives_the_priority_that_is_not_declared(kind: BackendImplKind) -> None:
    assert impl(kind=kind).priority == BackendPriority[kind.name]


def test_the_names_and_figures_are_those_that_settings_and_vendors_use() -> None:
    assert [str(kind) for kind in BackendImplKind] == ["flagos", "vendor", "reference"]
    assert [int(priority) for priority in BackendPriority] == [150, 100, 50]


@for_all(st.integers(min_value=0))
def test_a_declared_priority_stands(priority: int) -> None:
    assert impl(priority=priority).priority == priority


@pytest.mark.parametrize("make", [impl, platform, communicator])
@pytest.mark.parametrize("priority", [-1, 1.5, "100", True])
def test_a_priority_is_a_whole_number_from_0(make: Callable[..., Any], priority: Any) -> None:
    with pytest.raises(ValueError, match=r"priority is .* a whole number, 0 or more"):
        make(priority=priority)


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        *[(impl, "op", value) for value in ("", None, b"x")],
        *[(impl, "impl_id", value) for value in ("", None, 7)],
        *[(impl, "kind", value) for value in ("vendor", None)],
        *[(impl, "fn", value) for value in (None, "acme.ops", "acme:ops:f", ":f", "acme:", 3)],
        *[(impl, "accepts", value) for value in ("acme.ops", 3)],
        *[(impl, "is_available", value) for value in (True, None)],
        *[(impl, "vendor", value) for value in (None, "", ["acme"])],
        *[(impl, "mutates", value) for value in (None, "x", ["x"], ("x", 1))],
        *[(impl, "graph_safe", value) for value in ("no", None)],
        *[(platform, "name", value) for value in ("", None)],
        *[(platform, "device_type", value) for value in ("", None)],
        *[(platform, "is_available", value) for value in (True, None)],
        *[(platform, "total_memory", value) for value in (None, 2**30)],
        *[(platform, "capabilities", value) for value in (["triton"], frozenset({"tritn"}), "triton")],
        *[(platform, "kv_pools", value) for value in ({"mah": "acme:Pool"}, ["mha"], None)],
        *[(communicator, "name", value) for value in ("", None)],
        *[(communicator, "create", value) for value in ("acme", None)],
        *[(communicator, "is_available", value) for value in (True, None)],
        *[(setting, "key", value) for value in ("", "Acme", "a-b", None)],
        *[(setting, "help", value) for value in ("", None)],
        *[(aten_op, "name", value) for value in ("", "aten::add", "add.", "add.Tensor.out", None)],
        *[(aten_op, "replaced", value) for value in ("no", 1, None)],
    ],
)
def test_a_record_refuses_what_it_cannot_be_used_with(make: Callable[..., Any], field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is .*, but must be "):
        make(**{field: value})


@pytest.mark.parametrize("kind", [BackendImplKind.DEFAULT, BackendImplKind.REFERENCE])
def test_only_a_vendors_implementation_needs_a_vendor(kind: BackendImplKind) -> None:
    assert impl(kind=kind).vendor is None
    with pytest.raises(ValueError, match="vendor is 5"):
        impl(kind=kind, vendor=5)


def test_a_platform_that_sglang_knows_tells_no_memory() -> None:
    assert platform(total_memory=None, in_tree=True).total_memory is None


def test_graph_capture_needs_a_runner_where_sglang_has_none() -> None:
    capture = frozenset({"graph_capture"})
    with pytest.raises(ValueError, match="graph_runner is None"):
        platform(capabilities=capture)
    assert platform(capabilities=capture, graph_runner="acme:Runner").graph_runner == "acme:Runner"
    assert platform(capabilities=capture, in_tree=True).graph_runner is None


@pytest.mark.parametrize("make", [impl, platform, communicator, setting])
def test_a_record_cannot_change(make: Callable[[], Any]) -> None:
    record = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.priority = 5


def test_a_function_named_by_its_module_is_imported_when_it_is_loaded() -> None:
    assert impl(fn="json:dumps").load().__module__ == "json"
    assert impl(fn=silu_and_mul).load() is silu_and_mul
    assert impl(fn="a_module_that_is_not:there").fn == "a_module_that_is_not:there"


@pytest.mark.parametrize("target", ["a_module_that_is_not:there", "json:there_is_none", "json:__name__"])
def test_what_names_no_function_cannot_be_loaded(target: str) -> None:
    with pytest.raises((ImportError, AttributeError, TypeError)):
        impl(fn=target).load()
    with pytest.raises((ImportError, AttributeError, TypeError)):
        impl(accepts=target).load_accepts()


def test_an_implementation_without_accepts_has_none_to_load() -> None:
    assert impl().load_accepts() is None


def test_the_variable_of_a_setting_follows_its_key() -> None:
    assert setting().variable == "SGLANG_FL_ACME"
    assert setting(env="USE_ACME").variable == "USE_ACME"


def test_records_are_hashable() -> None:
    assert len({impl(), impl(), impl("other")}) == 2
    assert isinstance(hash(impl()), int) and isinstance(impl(), OpImpl)


@pytest.mark.parametrize("prefix", ["", "aten::", "torch.", "torch.ops.aten."])
def test_an_aten_op_is_meant_by_its_name_with_or_without_overload_and_namespace(prefix: str) -> None:
    assert aten_op().covered_by(f"{prefix}add.Tensor")
    assert aten_op().covered_by(f"{prefix}add")
    assert not aten_op().covered_by(f"{prefix}add.Scalar")
    assert not aten_op().covered_by(f"{prefix}addmm")
