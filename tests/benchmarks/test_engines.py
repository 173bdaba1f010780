"""A real engine tells what its layers are bound to, so that SGLang alone is not compared with itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.engines import Variant, add_served, start_all
from benchmarks.figures import Figures
from tests.models import tiny_llama

REFERENCE = Variant("reference", (("SGLANG_FL_PREFER", "reference"),), serves="reference.torch")
ARGUMENTS = {
    **{"device": "cpu", "skip_tokenizer_init": True, "attention_backend": "torch_native", "dtype": "float32"},
    **{"sampling_backend": "pytorch", "grammar_backend": "none", "max_total_tokens": 512},
}


@pytest.mark.server
def test_an_engine_tells_what_serves_its_layers_and_forgets_what_the_shell_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", "none")
    monkeypatch.setenv("SGLANG_FL_ENABLED", "0")
    with ExitStack() as stack:
        arguments = {**ARGUMENTS, "model_path": str(tiny_llama(tmp_path / "model"))}
        (engine,) = start_all(stack, [REFERENCE], arguments, tmp_path / "logs")
        assert {*engine.bound} == {"reference.torch"}
        assert engine.timed([[1, 2, 3]], 2) > 0


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [(["acme"], "1 engines bound ==1 ok"), ([], "0 engines bound ==1 missed"), (["acme", "b"], "==1 missed")],
    ids=["all by it", "nothing", "some by another"],
)
def test_a_variant_that_does_not_serve_is_a_missed_figure(
    bound: list[str], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engines: list[Any] = [SimpleNamespace(variant=Variant("acme", serves="acme"), bound=bound)]
    add_served("run", engines, Figures())
    assert verdict in capsys.readouterr().out
