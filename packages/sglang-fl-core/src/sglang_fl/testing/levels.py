"""The levels of the suite: each is a marker, and ``pytest -m L3`` runs one alone."""

from __future__ import annotations

LEVELS = {
    "L0": "imports and hygiene in every process",
    "L1": "platform",
    "L2": "boot and generate on the reference ops",
    "L3": "ops",
    "L4": "attention backend and KV pool",
    "L5": "collectives",
    "L6": "graph capture and replay, tracing",
    "L7": "performance against the reference and native",
}
"""Marker -> what it is about."""
