from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _alone(core_alone: None) -> None:
    """The pages show what core prints, whichever backends are installed."""
