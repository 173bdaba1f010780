from __future__ import annotations

import sys

import pytest

from benchmarks import serving


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
