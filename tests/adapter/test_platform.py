"""A platform record is all that SGLang's platform interface needs to know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.errors import PlatformError
from sglang_fl.records import Platform


def _record(**fields: Any) -> Platform:
    known = {"total_memory": lambda index: 100 + index, "used_memory": lambda index: 30}
    return Platform(**{"name": "acme", "device_type": "cpu", "is_available": lambda: True, **known, **fields})


def _platform(record: Platform) -> Any:
    from sglang_fl.adapter.platform import out_of_tree_class

    return out_of_tree_class(record)()


def test_the_record_speaks_through_the_interface(layers: SimpleNamespace) -> None:
    platform = _platform(
        _record(
            distributed_backend="accl",
            attention_backend="acme",
            device_name=lambda index: f"Acme {index}",
            capabilities=frozenset({"triton", "pinned_memory"}),
            kv_pools={"mha": "collections:OrderedDict"},
        )
    )
    assert platform.is_out_of_tree()
    assert platform.get_device_total_memory(1) == 101
    assert platform.get_current_memory_usage() == 30
    assert platform.get_available_memory(0) == (70, 100)
    assert platform.get_torch_distributed_backend_str() == "accl"
    assert platform.get_default_attention_backend() == "acme"
    assert platform.get_device_name(2) == "Acme 2"
    assert platform.is_pin_memory_available()
    assert platform.capabilities.supports_triton
    assert not platform.capabilities.graph_capture
    assert platform.get_kv_pool_cls(kind="mha").__name__ == "OrderedDict"
    assert platform.get_kv_pool_cls(kind="mla") is None


def test_a_device_is_named_with_its_index_except_the_cpu(layers: SimpleNamespace) -> None:
    assert _platform(_record()).get_device(3) == "cpu"
    assert _platform(_record(device_type="npu")).get_device(3) == "npu:3"
    assert _platform(_record(device_type="npu")).get_device(None) == "npu"


def test_a_function_that_sglang_needs_and_the_record_lacks_is_named(layers: SimpleNamespace) -> None:
    with pytest.raises(PlatformError, match="used_memory"):
        _platform(_record(used_memory=None)).get_current_memory_usage()


def test_an_unknown_server_argument_is_named(layers: SimpleNamespace) -> None:
    platform = _platform(_record(server_args={"max_total_tokns": 1}))
    with pytest.raises(SystemExit, match="max_total_tokns"):
        platform.apply_server_args_defaults(SimpleNamespace())


def test_a_cpu_platform_does_not_hide_a_device_that_sglang_sees(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang_fl.adapter.platform import _refuse_to_hide_an_accelerator

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    with pytest.raises(PlatformError, match="CUDA_VISIBLE_DEVICES"):
        _refuse_to_hide_an_accelerator(_record())


def test_a_device_that_sglang_has_no_platform_for_is_not_left_to_it(layers: SimpleNamespace) -> None:
    from sglang_fl.adapter.platform import _require_in_tree

    _require_in_tree(_record(device_type="cuda", in_tree=True))
    with pytest.raises(PlatformError, match="acmechip"):
        _require_in_tree(_record(device_type="acmechip", in_tree=True))
