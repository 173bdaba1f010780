"""The base class that vendors' backends for sglang-plugin-FL import from here; :func:`sglang_fl.adopt` takes them."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Backend(ABC):
    """Holds a vendor's ops as methods. New backends need no class: a record names a function."""

    @abstractmethod
    def is_available(self) -> bool:
        """Can its ops run in this process?"""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called."""

    @property
    def vendor(self) -> str | None:
        """Whose it is, when it is a vendor's."""
        return None
