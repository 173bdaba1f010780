"""The conformance suite of sglang-fl, against what Opal claims."""

from sglang_fl.testing.suite import *  # noqa: F403
