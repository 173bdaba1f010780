"""The suite's servers are servers of this repository's tests, too: marked, on the CPU, and quick to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapter.releases.wheels import source_folder

SERVERS = {"plain", "attending", "replaying"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True, scope="module")
def _of_a_plain_cpu() -> Iterator[None]:
    models = (source_folder("0.5.23") / "sglang/srt/models").glob("*.py")
    others = ",".join(file.stem for file in models if file.stem != "llama")  # importing them takes 10 seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_DISABLED_MODEL_ARCHS", others)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield
