"""What a test of the suite fails with."""

from __future__ import annotations


class Nonconformance(AssertionError):
    """The subject broke a rule.

    Args:
        who: the subject.
        asked: the call, or the rule.
        found: what it did.
        do: what its author can do about it.
    """

    def __init__(self, who: str, *, asked: str, found: str, do: str) -> None:
        super().__init__(f"{who}\n  asked: {asked}\n  found: {found}\n  to do: {do}")
