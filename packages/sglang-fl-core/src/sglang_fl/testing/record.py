"""What each test says of itself for the report: one JSON text among pytest's user properties, so JUnit has it too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sglang_fl.testing.levels import LEVELS
from sglang_fl.testing.reporter import PROPERTY
from sglang_fl.testing.subject import Subject
from sglang_fl.testing.under_test import OpUnderTest


def level_of(item: pytest.Item) -> str | None:
    """The level that a test belongs to."""
    return next((level for level in LEVELS if item.get_closest_marker(level) is not None), None)


def describe(item: pytest.Item, subject: Subject) -> dict[str, Any]:
    """What is tested, where, and what it came to so far."""
    told: dict[str, Any] = {
        "subject": subject.name,
        "platform": subject.platform.name,
        "device": subject.device_name,
        "versions": subject.versions,
        "level": level_of(item),
    }
    under_test = next((value for value in item_arguments(item).values() if isinstance(value, OpUnderTest)), None)
    if under_test is not None:
        told |= {
            "op": under_test.op,
            "calls": under_test.tally.offered,
            "refused": dict(under_test.tally.refusals),
            "notes": under_test.notes,
        }
    return told


def item_arguments(item: pytest.Item) -> dict[str, Any]:
    """The values of a test's fixtures."""
    return getattr(item, "funcargs", {})


def attach(item: pytest.Item, subject: Subject) -> None:
    """Puts the test's description among its properties, in place of an earlier one."""
    item.user_properties[:] = [one for one in item.user_properties if one[0] != PROPERTY]
    item.user_properties.append((PROPERTY, json.dumps(describe(item, subject))))
