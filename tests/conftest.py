"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)  # a pause of the machine is no failure of the code
settings.load_profile("shared-machine")
