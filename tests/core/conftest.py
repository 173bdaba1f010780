from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _alone(core_alone: None) -> None:
    """Core's tests hold whichever backends are installed."""
