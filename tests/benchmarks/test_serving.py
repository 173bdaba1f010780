from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import serving
from benchmarks.engines import ALONE, ATEN, EngineError
from benchmarks.figures import Figures


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--traces", "--variants", "aten"], "vendor, flagos"),
        (["--seconds", "-3"], "-3 is no length of time"),
        (["--engines", "2", "--starts"], "not allowed with"),
    ],
)
def test_what_would_have_no_effect_is_refused_before_an_engine_starts(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", *arguments])
    monkeypatch.setattr(serving, "model", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        serving.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


GROUP = serving.Group("smollm2", "eager", Path("model"), Path("logs"), 1, 1.0, None)


def engine(variant: Any) -> Any:
    return SimpleNamespace(variant=variant)


@pytest.mark.parametrize("dies", [ALONE, ATEN])
def test_an_aten_layer_that_does_not_serve_is_told_and_that_sglang_alone_does_not_is_an_error(
    dies: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(name: str, engines: list[Any], *rest: Any) -> None:
        raise EngineError(next(each for each in engines if each.variant is dies), "no answer")

    monkeypatch.setattr(serving, "start_all", lambda stack, variants, *rest: list(map(engine, variants)))
    monkeypatch.setattr(serving, "compare", compare)
    alone = [engine(ALONE)]
    if dies is ALONE:
        with pytest.raises(EngineError):
            serving._measure_layer(GROUP, alone, ATEN, Figures())
    else:
        serving._measure_layer(GROUP, alone, ATEN, Figures())
        assert "figure serving.smollm2.eager.aten.served 0 engines" in capsys.readouterr().out


def test_the_first_request_is_part_of_a_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = SimpleNamespace(start_seconds=10.0, timed=lambda *work: 31.0, host_memory=lambda: 0)
    monkeypatch.setattr(serving, "start_all", lambda *arguments: [started])
    monkeypatch.setattr(serving.torch.cuda, "mem_get_info", lambda: (0, 0))
    serving.Starts(Figures()).timed("group", ExitStack(), ALONE, {}, Path())
    assert "figure group.alone.start.time 41 s" in capsys.readouterr().out
