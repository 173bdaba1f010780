from __future__ import annotations

from sglang_fl.testing import Requirements

requirements = Requirements(
    plugin="reference",
    platform="cpu",
    implementation="reference.torch",
    communicator="torch",
)
