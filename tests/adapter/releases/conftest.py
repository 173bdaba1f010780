from __future__ import annotations

import pytest

from tests.adapter.releases.sources import Sources
from tests.adapter.releases.wheels import RELEASES, source_folder


@pytest.fixture(params=RELEASES, scope="session")
def release(request: pytest.FixtureRequest) -> str:
    """Each supported release of SGLang."""
    return str(request.param)


@pytest.fixture(scope="session")
def sources(release: str) -> Sources:
    """The release's source."""
    return Sources(source_folder(release))
