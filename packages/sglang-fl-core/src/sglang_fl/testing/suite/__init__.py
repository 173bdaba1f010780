"""The tests. A backend's test file imports them all: ``from sglang_fl.testing.suite import *``.

Each module holds one subject of one level; ``pytest -m L3`` runs a level alone. A test is a function that states a
rule; a backend that must deviate defines one of the same name below the import, with a comment why.
"""

from __future__ import annotations

from sglang_fl.testing.suite import fixtures
from sglang_fl.testing.suite.fixtures import *  # noqa: F403
from sglang_fl.testing.suite.l0_hygiene import *  # noqa: F403
from sglang_fl.testing.suite.l1_platform import *  # noqa: F403
from sglang_fl.testing.suite.l2_serving import *  # noqa: F403
from sglang_fl.testing.suite.l3_behaviour import *  # noqa: F403
from sglang_fl.testing.suite.l3_memory import *  # noqa: F403
from sglang_fl.testing.suite.l3_rotary import *  # noqa: F403
from sglang_fl.testing.suite.l3_shapes import *  # noqa: F403
from sglang_fl.testing.suite.l3_values import *  # noqa: F403
from sglang_fl.testing.suite.l4_attention import *  # noqa: F403
from sglang_fl.testing.suite.l5_collectives import *  # noqa: F403
from sglang_fl.testing.suite.l6_graphs import *  # noqa: F403
from sglang_fl.testing.suite.l7_performance import *  # noqa: F403

TESTS = tuple(name for name in globals() if name.startswith("test_"))
"""The name of every test."""

__all__ = [*fixtures.__all__, *TESTS]  # noqa: PLE0604 - they are all names
