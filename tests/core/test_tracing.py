from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from sglang_fl import hookspecs
from sglang_fl.errors import SettingsError
from sglang_fl.hookspecs import PROJECT, hookimpl
from sglang_fl.records import BackendImplKind, OpImpl, Platform, always
from sglang_fl.trace_records import read_records
from sglang_fl.tracing import KINDS, Tracer

CPU = Platform(name="cpu", device_type="cpu", is_available=always, total_memory=lambda index: 1)


def tracer(directory: Path, *kinds: str) -> Tracer:
    made = Tracer.start(kinds, directory)
    assert made is not None
    return made


def written(directory: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, as JSON has them; each also reads back as a record of that kind."""
    records = [json.loads(line) for file in directory.iterdir() for line in file.read_text().splitlines()]
    read = [record for file in directory.iterdir() for record in read_records(file)]
    assert len(read) == len(records)
    return [record for record in records if record["kind"] == kind]


def silu_and_mul(obj: Any, x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return nn.functional.silu(x[..., :half]) * x[..., half:]


# Starting


def test_no_kind_is_no_tracer_and_no_file(tmp_path: Path) -> None:
    assert Tracer.start((), tmp_path / "traces") is None
    assert not (tmp_path / "traces").exists()


def test_an_unknown_kind_is_an_error_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'hook'.*did you mean 'hooks'"):
        Tracer.start(["hook", "calls"], tmp_path)


def test_a_directory_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"{tmp_path}/file/traces .*Not a directory"):
        Tracer.start(KINDS, tmp_path / "file" / "traces")


def test_the_start_tells_the_versions_and_the_command_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ["--api-key", "S1", "--admin-api-key=S2", "--ssl-keyfile-password", "S3", "--hf-token", "S4"]
    monkeypatch.setattr(sys, "argv", ["serve", *secrets, "--max-total-tokens", "512", "--tp=2"])
    tracer(tmp_path, "calls")
    [start] = written(tmp_path, "start")
    hidden = ["--api-key", "***", "--admin-api-key=***", "--ssl-keyfile-password", "***", "--hf-token", "***"]
    assert start["argv"] == ["serve", *hidden, "--max-total-tokens", "512", "--tp=2"]
    assert start["versions"]["pluggy"] == pluggy.__version__


def test_a_spawned_child_that_is_handed_the_tracer_writes_its_own_file(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=tracer(tmp_path, "calls").event, args=("child",))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert {record["pid"] for record in written(tmp_path, "start")} == {os.getpid(), child.pid}
    assert [record["pid"] for record in written(tmp_path, "child")] == [child.pid]


# Hooks


class Backend:
    def __init__(self, *impl_ids: str) -> None:
        self.impls = [
            OpImpl(op="layer_norm", impl_id=name, kind=BackendImplKind.REFERENCE, fn="m:f") for name in impl_ids
        ]

    @hookimpl
    def sglang_fl_register_ops(self, platform: Platform) -> list[OpImpl]:
        return self.impls


class Silent:
    @hookimpl
    def sglang_fl_register_ops(self) -> None:
        return None


class Broken:
    @hookimpl
    def sglang_fl_register_ops(self) -> None:
        msg = "no driver"
        raise RuntimeError(msg)


class Exits:
    @hookimpl
    def sglang_fl_register_ops(self) -> None:
        raise SystemExit(3)


def plugin_manager(plugins: Mapping[str, object]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        manager.register(plugin, name)
    return manager


def test_a_hook_call_is_recorded_with_each_plugins_result_in_call_order(tmp_path: Path) -> None:
    manager = plugin_manager({"one": Backend("a", "b"), "two": Backend("c")})
    tracer(tmp_path, "hooks").watch(manager)
    results = manager.hook.sglang_fl_register_ops(platform=CPU)
    assert [[impl.impl_id for impl in result] for result in results] == [["c"], ["a", "b"]]
    [record] = written(tmp_path, "hook")
    assert record["hook"] == "sglang_fl_register_ops"
    assert record["arguments"] == {"platform": "Platform(cpu)"}
    assert record["plugins"] == ["two", "one"]
    assert record["results"] == ["[layer_norm/c]", "[layer_norm/a, layer_norm/b]"]
    assert 0 < record["duration_ns"] < 10**9
    assert "raised" not in record


def test_a_hook_call_of_one_plugin_among_many_names_that_plugin(tmp_path: Path) -> None:
    manager = plugin_manager({"one": Backend("a"), "two": Backend("b"), "three": Backend("c")})
    tracer(tmp_path, "hooks").watch(manager)
    others = [plugin for name, plugin in manager.list_name_plugin() if name != "two"]
    manager.subset_hook_caller("sglang_fl_register_ops", others)(platform=CPU)
    [record] = written(tmp_path, "hook")
    assert (record["plugins"], record["results"]) == (["two"], ["[layer_norm/b]"])


def test_a_plugin_that_answers_none_has_no_result(tmp_path: Path) -> None:
    manager = plugin_manager({"silent": Silent()})
    tracer(tmp_path, "hooks").watch(manager)
    assert manager.hook.sglang_fl_register_ops(platform=CPU) == []
    [record] = written(tmp_path, "hook")
    assert (record["plugins"], record["results"]) == (["silent"], [])


@pytest.mark.parametrize(
    ("plugin", "error", "told"),
    [(Broken(), RuntimeError, "RuntimeError('no driver')"), (Exits(), SystemExit, "SystemExit(3)")],
)
def test_an_exception_is_recorded_with_the_plugin_that_raised_it_and_goes_on(
    tmp_path: Path, plugin: object, error: type[BaseException], told: str
) -> None:
    manager = plugin_manager({"before": Backend("a"), "bad": plugin, "after": Backend("b")})
    tracer(tmp_path, "hooks").watch(manager)
    with pytest.raises(error):
        manager.hook.sglang_fl_register_ops(platform=CPU)
    [record] = written(tmp_path, "hook")
    assert record["raised"] == {"plugin": "bad", "error": told}
    assert record["results"] == []


def test_a_call_that_lacks_an_argument_blames_no_plugin(tmp_path: Path) -> None:
    manager = plugin_manager({"one": Backend("a")})
    tracer(tmp_path, "hooks").watch(manager)
    with pytest.raises(pluggy.HookCallError), pytest.warns(UserWarning, match="platform"):
        manager.hook.sglang_fl_register_ops()
    [record] = written(tmp_path, "hook")
    assert record["raised"]["plugin"] is None


def test_a_hook_called_within_a_hook_is_recorded_within_its_time(tmp_path: Path) -> None:
    class Outer:
        @hookimpl
        def sglang_fl_register_platforms(self) -> list[Any]:
            manager.hook.sglang_fl_register_settings()
            return []

    class Inner:
        @hookimpl
        def sglang_fl_register_settings(self) -> list[Any]:
            return []

    manager = plugin_manager({"outer": Outer(), "inner": Inner()})
    tracer(tmp_path, "hooks").watch(manager)
    manager.hook.sglang_fl_register_platforms()
    inner, outer = written(tmp_path, "hook")
    assert (inner["plugins"], outer["plugins"]) == (["inner"], ["outer"])
    assert outer["ns"] <= inner["ns"]
    assert inner["ns"] + inner["duration_ns"] <= outer["ns"] + outer["duration_ns"]


def test_without_hooks_the_plugin_manager_stays_as_it_is(tmp_path: Path) -> None:
    manager = plugin_manager({"one": Backend("a")})
    before = dict(vars(manager))
    tracer(tmp_path, "select", "calls").watch(manager)
    assert vars(manager) == before


# Selections and events


SELECTION = {
    "op": "layer_norm",
    "chosen": "a",
    "rule": "declared priority",
    "verdicts": [{"impl_id": "a", "plugin": "p", "rank": 1, "reason": "priority 50"}],
}


def test_a_selection_is_recorded_with_its_reasons_when_asked_for(tmp_path: Path) -> None:
    tracer(tmp_path / "on", "select").selection(SELECTION)
    tracer(tmp_path / "off", "hooks", "calls").selection(SELECTION)
    [record] = written(tmp_path / "on", "select")
    assert {name: record[name] for name in SELECTION} == SELECTION
    assert written(tmp_path / "off", "select") == []


@pytest.mark.parametrize("kind", KINDS)
def test_bound_layers_and_events_are_recorded_whatever_is_traced(tmp_path: Path, kind: str) -> None:
    row = {"op": "layer_norm", "layer_class": "LayerNorm", "implementation": "a", "layers": 3, "note": ""}
    quarantine = {"op": "x", "implementation": "y", "dtype": "torch.half", "device": "cpu", "reason": "boom"}
    made = tracer(tmp_path, kind)
    made.bound([row])
    made.event("quarantine", **quarantine)
    [bound], [event] = written(tmp_path, "bound"), written(tmp_path, "quarantine")
    assert bound["rows"] == [row]
    assert {name: event[name] for name in quarantine} == quarantine


# Calls


def test_without_calls_a_recorded_function_is_the_function_itself(tmp_path: Path) -> None:
    assert tracer(tmp_path, "hooks", "select").recorded("silu_and_mul", "a", silu_and_mul) is silu_and_mul


def test_a_call_is_recorded_with_what_it_was_given_and_returns_what_the_function_returns(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.SiLU()))
    answer = object()

    def rms_norm(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> object:
        return answer

    made = tracer(tmp_path, "calls")
    made.name_layers(model)
    call = made.recorded("rms_norm", "vendor.x", rms_norm)
    x = torch.zeros(2, 4, dtype=torch.bfloat16)
    assert call(model[1][0], x, residual=torch.zeros(2, 4)) is answer
    assert call(model[1][0], x, None) is answer
    first, second = written(tmp_path, "call")
    assert (first["op"], first["implementation"]) == ("rms_norm", "vendor.x")
    assert (first["layer_class"], first["layer"]) == ("SiLU", "1.0")
    assert first["shapes"] == {"x": [2, 4], "residual": [2, 4]}
    assert first["dtypes"] == {"x": "bfloat16", "residual": "float32"}
    assert 0 <= first["duration_ns"] < 10**9
    assert second["shapes"] == {"x": [2, 4]}


def test_the_exception_of_a_call_is_recorded_and_is_the_callers(tmp_path: Path) -> None:
    error = RuntimeError("no kernel")

    def fails(obj: Any, x: torch.Tensor) -> None:
        raise error

    with pytest.raises(RuntimeError) as raised:
        tracer(tmp_path, "calls").recorded("silu_and_mul", "a", fails)(None, torch.zeros(2))
    assert raised.value is error
    [record] = written(tmp_path, "call")
    assert record["raised"] == "RuntimeError('no kernel')"


class Opaque:
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("layer", [None, SimpleNamespace(weight=1), Opaque(), nn.SiLU()])
def test_a_layer_without_a_name_is_told_by_its_class(tmp_path: Path, layer: object) -> None:
    tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)(layer, torch.zeros(2))
    [record] = written(tmp_path, "call")
    assert (record["layer_class"], record["layer"]) == (type(layer).__name__, None)


def test_a_named_layer_is_not_kept_alive(tmp_path: Path) -> None:
    made, model = tracer(tmp_path, "calls"), nn.Sequential(nn.SiLU())
    made.name_layers(model)
    layer = weakref.ref(model[0])
    del model
    gc.collect()
    assert layer() is None


def test_an_illegal_call_fails_as_it_would_without_tracing(tmp_path: Path) -> None:
    call = tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        call()
    with pytest.raises(TypeError, match="takes 2 positional arguments but 4 were given"):
        call(None, torch.zeros(2), 1, 2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_tensor_that_tells_no_shape_is_served(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    call = tracer(tmp_path, "calls").recorded("layer_norm", "a", lambda obj, x: x)
    assert call(None, nested) is nested
    [record] = written(tmp_path, "call")
    assert (record["shapes"], record["dtypes"]) == ({}, {"x": "float32"})


def test_a_full_disk_changes_no_result_and_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    call = tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)
    x = torch.randn(2, 8)
    [file] = tmp_path.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        results = [call(None, x), call(None, x)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all(torch.equal(result, silu_and_mul(None, x)) for result in results)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"cannot write the trace in {tmp_path}, serving goes on without it"
    ]
    assert written(tmp_path, "call") == []


def test_dynamo_compiles_through_a_recorded_function_in_one_graph(tmp_path: Path) -> None:
    call = tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)
    x = torch.randn(2, 8)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: call(None, x), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), silu_and_mul(None, x))
    assert written(tmp_path, "call") == []


@pytest.mark.parametrize("strict", [True, False])
def test_export_with_a_dynamic_shape_goes_through_a_recorded_function(tmp_path: Path, strict: bool) -> None:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return call(None, x)

    call = tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)
    rows = ({0: torch.export.Dim("rows")},)
    exported = torch.export.export(Layer(), (torch.randn(2, 8),), dynamic_shapes=rows, strict=strict).module()
    x = torch.randn(5, 8)
    assert torch.equal(exported(x), silu_and_mul(None, x))


def test_recording_a_symbolic_shape_does_not_fix_it(tmp_path: Path) -> None:
    call = tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)
    traced = make_fx(lambda x: call(None, x), tracing_mode="symbolic")(torch.randn(2, 8))
    x = torch.randn(5, 8)
    assert torch.equal(traced(x), silu_and_mul(None, x))
    [record] = written(tmp_path, "call")
    assert record["shapes"]["x"][0].startswith("s")


def named(fn: Callable[..., Any]) -> str:
    return f"{fn.__module__}.{fn.__qualname__}"


def test_a_recorded_function_keeps_its_name(tmp_path: Path) -> None:
    assert named(tracer(tmp_path, "calls").recorded("silu_and_mul", "a", silu_and_mul)) == named(silu_and_mul)
