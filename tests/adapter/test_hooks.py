"""What is hooked in a process of SGLang's, beside what ``test_summary`` and ``test_serving`` show."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from sglang_fl.errors import SeamError
from sglang_fl.session import Session


def compile_as_sglang_does_on_cuda(
    monkeypatch: pytest.MonkeyPatch, layers: SimpleNamespace, **environ: str
) -> torch.nn.Module:
    """A model whose layers are bound, once SGLang has begun and ended to compile its steps for two batch sizes."""
    from sglang.kernels.fused_op import BaseFusedOp
    from sglang.srt.compilation.torch_compile_decoration import patch_model

    from sglang_fl.adapter.binding import Binder
    from sglang_fl.adapter.hooks import _entering_compile

    session = Session.start({"SGLANG_FL_PLATFORM": "cpu", **environ})
    binder = Binder(session.dispatcher, session.settings, session.platform)
    hook, original = _entering_compile(binder, session), BaseFusedOp.enter_torch_compile
    monkeypatch.setattr(BaseFusedOp, "enter_torch_compile", lambda layer, **size: hook(original, layer, **size))
    model = torch.nn.Sequential(layers.RMSNorm(8), layers.SiluAndMul())
    for layer in model:
        layer._forward_method = binder.forward_for(layer, layer.forward_native)
        layer._forward_method.bind()
    for num_tokens in (1, 2):
        with patch_model(model, True, num_tokens, SimpleNamespace(ca_comm=None)):
            assert all(layer._forward_method == layer.forward_native for layer in model)
    return model


def test_that_compiled_steps_go_past_the_ops_is_told_once(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "sglang_fl"):
        model = compile_as_sglang_does_on_cuda(monkeypatch, layers)
    assert caplog.text.count("--enable-torch-compile") == 1
    assert all(layer._forward_method != layer.forward_native for layer in model)


def test_that_compiled_steps_go_past_the_ops_is_an_error_when_strict(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SeamError, match="--enable-torch-compile"):
        compile_as_sglang_does_on_cuda(monkeypatch, layers, SGLANG_FL_STRICT="1")


def test_nothing_is_told_of_layers_that_are_left_to_sglang(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_as_sglang_does_on_cuda(
        monkeypatch, layers, SGLANG_FL_STRICT="1", SGLANG_FL_OOT_BLACKLIST="rms_norm,silu_and_mul"
    )
    assert "torch-compile" not in caplog.text
