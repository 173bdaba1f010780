"""The conformance kit: a backend's own tests are its claims, :class:`Requirements`, and one import.

``from sglang_fl.testing.suite import *`` in a test file, with a ``requirements.py`` beside it, makes pytest run the
suite against exactly the implementation that is named there. See ``docs/conformance.md``. Needs
``sglang-fl-core[testing]``.
"""

from __future__ import annotations

from sglang_fl.testing.requirements import Requirements

__all__ = ["Requirements"]
