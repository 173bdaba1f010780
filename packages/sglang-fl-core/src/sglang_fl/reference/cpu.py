"""What the CPU platform says of the machine. Every function takes a device index, which means nothing here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc")


def total_memory(device_index: int = 0) -> int:
    """The machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def used_memory(device_index: int = 0) -> int:
    """What of it no process can have now, in bytes; page cache can be had. Raises OSError without /proc."""
    available_kib = int(_proc_entry("meminfo", "MemAvailable").removesuffix("kB"))
    return total_memory() - available_kib * 1024


def device_name(device_index: int = 0) -> str:
    """The processor's name for people, or its architecture where the kernel does not tell the name."""
    try:
        return _proc_entry("cpuinfo", "model name")
    except (LookupError, OSError):
        return platform.machine()


def _proc_entry(file: str, key: str) -> str:
    """The value of the first ``key: value`` in /proc/``file``. Raises LookupError when there is none."""
    for line in (_PROC / file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    raise LookupError(key)
