from __future__ import annotations

import pytest

from benchmarks.startup import _run


def test_a_process_that_fails_is_told_with_its_message() -> None:
    with pytest.raises(SystemExit, match="No module named 'nothing_such'"):
        _run("import nothing_such")


def test_what_the_shell_has_set_for_the_plugin_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_ENABLED", "0")
    assert _run("import os; print(sum(name.startswith('SGLANG_FL_') for name in os.environ))") == 0
