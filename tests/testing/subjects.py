"""Subjects made of records, without an installed backend."""

from __future__ import annotations

from typing import Any

from sglang_fl.plugins import Plugin
from sglang_fl.records import Platform, always
from sglang_fl.testing.requirements import Requirements
from sglang_fl.testing.subject import Subject


def platform(**fields: Any) -> Platform:
    """A chip that is a CPU, and says of itself what it should."""
    sound: dict[str, Any] = {
        "name": "acme",
        "device_type": "cpu",
        "is_available": always,
        "total_memory": lambda index: 64 * 2**30,
        "used_memory": lambda index: 2**30,
        "device_name": lambda index: "Acme One",
    }
    return Platform(**{**sound, **fields})


def subject(record: Platform | None = None, **claims: Any) -> Subject:
    """The ops of ``vendor.acme`` on a platform; it offers none."""
    named = {"plugin": "acme", "platform": "acme", "implementation": "vendor.acme", **claims}
    return Subject(Requirements(**named), Plugin("acme", "acme-chip", "1.0"), record or platform(), {})
