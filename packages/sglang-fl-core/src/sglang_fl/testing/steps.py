"""What :mod:`sglang_fl.testing.hygiene` saw, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sglang_fl.testing.failure import Nonconformance
from sglang_fl.testing.processes import run_module
from sglang_fl.testing.subject import Subject

_AFTER_HOOKS = ("core collects its records", "is_available is asked", "its functions are loaded")


class Steps:
    """The steps in their order.

    Args:
        who: the subject.
        told: each step as hygiene tells it.
    """

    def __init__(self, who: str, told: Sequence[dict[str, Any]]) -> None:
        self._who = who
        self._told = told

    def __getitem__(self, name: str) -> dict[str, Any]:
        return next(step for step in self._told if step["step"] == name)

    def answers(self, name: str) -> list[Any]:
        """What the steps of one name answered."""
        return [step["answer"] for step in self._told if step["step"] == name]

    def require(self, what: str, wrong: Callable[[Any], Any], do: str) -> None:
        """Raises Nonconformance for the first step in whose ``what`` something is ``wrong``."""
        self._require(self._told, what, wrong, do)

    def require_of_hooks(self, what: str, wrong: Callable[[Any], Any], do: str) -> None:
        """As :meth:`require`, for the hooks alone: whatever is asked and loaded after them may have effects."""
        hooks = [step for step in self._told if step["step"] not in _AFTER_HOOKS and "diagnose" not in step["step"]]
        self._require(hooks, what, wrong, do)

    def _require(self, steps: Sequence[dict[str, Any]], what: str, wrong: Callable[[Any], Any], do: str) -> None:
        for step in steps:
            found = wrong(step[what])
            if found:
                raise Nonconformance(self._who, asked=step["step"], found=f"{what}: {found}", do=do)


def watched(subject: Subject) -> Steps:
    """Uses the subject's hooks in a process of its own."""
    claims = subject.requirements
    arguments = (claims.plugin, claims.platform, *claims.sdk)
    # torch imports what calls itself a backend of it; that would be no fault of the hooks.
    told = run_module("sglang_fl.testing.hygiene", *arguments, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    return Steps(subject.name, told)
