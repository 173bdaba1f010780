"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# Two workers share few cores, and OpenMP threads that wait for each other there take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("shared-machine", deadline=None)  # a pause of the machine is no failure of the code
settings.load_profile("shared-machine")
