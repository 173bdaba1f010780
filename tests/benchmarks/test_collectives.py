from __future__ import annotations

import sys

import pytest

from benchmarks import collectives


@pytest.mark.parametrize("arguments", [["--ranks", "1"], ["--ranks", "-1"], ["--largest", "0"]])
def test_what_would_measure_nothing_is_refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["collectives", *arguments])
    monkeypatch.setattr(collectives, "served_adds", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        collectives.main()
    assert ended.value.code == 2


def test_a_size_that_ranks_cannot_share_is_measured_as_the_next_that_they_can() -> None:
    names = [name for name, *_ in collectives._ranks(3, (["reduce_scatter"], [1024]))]
    assert "collectives.reduce_scatter.1KB.torch" in names
