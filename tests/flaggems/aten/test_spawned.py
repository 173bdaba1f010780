from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from .workers import settings_and_activation


def test_settings_reach_a_spawned_worker_from_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.yaml").write_text("{use_flaggems: true, flagos_blacklist: [mul]}")
    monkeypatch.setenv("SGLANG_FL_CONFIG", str(tmp_path / "my.yaml"))
    monkeypatch.setenv("SGLANG_FLAGGEMS_RECORD", "1")
    monkeypatch.setenv("SGLANG_FL_PLATFORM", "cpu")

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        settings, error = workers.submit(settings_and_activation).result(timeout=300)

    assert settings["use_flaggems"] is True
    assert settings["flagos_blacklist"] == ("mul",)
    assert settings["flaggems_record"] is True
    assert error is not None
    assert error.startswith("sglang-fl-flaggems: asked for FlagGems in the place of PyTorch's own ops (use_flaggems, /")
