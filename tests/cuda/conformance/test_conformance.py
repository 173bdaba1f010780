from sglang_fl.testing.suite import *  # noqa: F403
