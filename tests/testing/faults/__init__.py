"""Copies of the reference ops, each with one fault of a kind that backends have had, and the test that catches it."""

from __future__ import annotations

from . import behaviour, memory, rotary, shapes, values  # noqa: F401 - each registers its own
from .fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
