"""After a model has loaded, the log says what serves it, and what should serve but does not is not passed over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.adapter import seams
from sglang_fl.errors import SeamError
from sglang_fl.records import Platform
from sglang_fl.session import Session

VERSION = seams.sglang_version()
TARGETS = {seams.at(seams.LOAD_MODEL, VERSION), seams.at(seams.FORWARD_CHOICE, VERSION)}


@pytest.fixture
def registry(layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """SGLang's hook registry, as it is when both hooks took."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    monkeypatch.setattr(HookRegistry, "_patched", set(TARGETS))
    yield HookRegistry


def _report(model: torch.nn.Module, platform: Platform | None = None, **environ: str) -> None:
    """Has the layers ask for their forwards as SGLang does, and reports."""
    from sglang_fl.adapter.binding import Binder
    from sglang_fl.adapter.summary import check_and_report

    session = Session.start({"SGLANG_FL_PLATFORM": "cpu", **environ})
    binder = Binder(session.dispatcher, session.settings, platform or session.platform)
    for layer in model:
        if layer._forward_method is None:
            layer._forward_method = binder.forward_for(layer, layer.forward_native)
    check_and_report(model, session, binder)


def test_the_table_counts_layers_by_fate(
    layers: SimpleNamespace, registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Sequential(layers.RMSNorm(8), layers.RMSNorm(8), layers.RMSNorm(8, force_native=True))
    with caplog.at_level(logging.INFO):
        _report(model)
    table = [line.split() for line in caplog.text.splitlines() if line.startswith("rms_norm")]
    assert table == [
        ["rms_norm", "RMSNorm", "SGLang", "1", "SGLang", "pins", "its", "forward"],
        ["rms_norm", "RMSNorm", "reference.torch", "2"],
    ]
    assert "ERROR" not in caplog.text


def test_an_op_bound_to_no_layer_is_an_error_when_strict(layers: SimpleNamespace, registry: Any) -> None:
    with pytest.raises(SeamError, match=r"rms_norm, which 1 layers .* SGLang pins its forward"):
        _report(torch.nn.Sequential(layers.RMSNorm(8, force_native=True)), SGLANG_FL_STRICT="1")


def test_an_op_bound_to_no_layer_is_told_loudly(
    layers: SimpleNamespace, registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _report(torch.nn.Sequential(layers.RMSNorm(8, cast_x_before_out_mul=True)))
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "cast_x_before_out_mul=True" in record.getMessage()


IN_TREE = Platform(name="acme", device_type="cuda", is_available=lambda: True, in_tree=True)


def test_where_sglang_has_kernels_the_reference_ops_do_not_take_their_place(
    layers: SimpleNamespace, registry: Any
) -> None:
    layer = layers.RMSNorm(8)
    _report(torch.nn.Sequential(layer), IN_TREE, SGLANG_FL_STRICT="1")
    assert layer._forward_method == layer.forward_native


def test_where_sglang_has_kernels_the_reference_ops_serve_whoever_asks_for_them(
    layers: SimpleNamespace, registry: Any
) -> None:
    layer = layers.RMSNorm(8)
    _report(torch.nn.Sequential(layer), IN_TREE, SGLANG_FL_PREFER="reference")
    assert layer._forward_method != layer.forward_native


def test_what_the_user_leaves_to_sglang_is_no_error(layers: SimpleNamespace, registry: Any) -> None:
    _report(torch.nn.Sequential(layers.RMSNorm(8)), SGLANG_FL_STRICT="1", SGLANG_FL_OOT_BLACKLIST="RMSNorm")


class Mlp(torch.nn.Module):
    """As SGLang 0.5.23's: what fuses the activation with what is behind it asks for the activation's own forward."""

    def __init__(self, act_fn: torch.nn.Module, fuses: bool) -> None:
        super().__init__()
        self.act_fn, self.activation_quant = act_fn, SimpleNamespace(enabled=fuses)


def test_an_activation_that_sglang_fuses_keeps_its_forward_and_the_others_do_not(
    layers: SimpleNamespace, registry: Any
) -> None:
    from sglang_fl.adapter.binding import Binder
    from sglang_fl.adapter.summary import check_and_report

    session = Session.start({"SGLANG_FL_PLATFORM": "cpu", "SGLANG_FL_STRICT": "1"})
    binder = Binder(session.dispatcher, session.settings, session.platform)
    fused, other = layers.SiluAndMul(), layers.SiluAndMul()
    for layer in (fused, other):
        layer._forward_method = binder.forward_for(layer, layer.forward_native)
    check_and_report(torch.nn.Sequential(Mlp(fused, fuses=True), Mlp(other, fuses=False)), session, binder)
    assert fused._forward_method == fused.forward_native
    assert other._forward_method != other.forward_native


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_hook_that_did_not_take_is_an_error_when_strict(layers: SimpleNamespace, registry: Any, target: str) -> None:
    registry._patched.remove(target)
    with pytest.raises(SeamError, match=target):
        _report(torch.nn.Sequential(layers.RMSNorm(8)), SGLANG_FL_STRICT="1")


def test_a_forced_backend_that_bypasses_every_op_is_an_error_when_strict(
    layers: SimpleNamespace, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.kernels import fused_op

    monkeypatch.setattr(fused_op, "get_fused_op_backend", lambda: fused_op.KernelBackend.TORCH)
    with pytest.raises(SeamError, match="SGLANG_FORCE_FUSED_OP_BACKEND=torch"):
        _report(torch.nn.Sequential(layers.RMSNorm(8)), SGLANG_FL_STRICT="1")


def test_a_target_that_sglang_lacks_is_an_error_when_strict_and_told_otherwise(
    layers: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    from sglang_fl.adapter.hooks import _hook

    target = "sglang.kernels.fused_op.BaseFusedOp._choose"
    with pytest.raises(SeamError, match=target):
        _hook(target, None, Session.start({"SGLANG_FL_PLATFORM": "cpu", "SGLANG_FL_STRICT": "1"}))
    _hook(target, None, Session.start({"SGLANG_FL_PLATFORM": "cpu"}))
    assert target in caplog.text
