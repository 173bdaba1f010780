"""What a backend claims: the subject of its conformance tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sglang_fl.errors import SglangFlError, nearest
from sglang_fl.ops import CONTRACTS

FILE = "requirements.py"
VARIABLE = "requirements"

DTYPES = ("float32", "float16", "bfloat16")
FEATURES = ("serving", "attention", "collectives", "graphs", "compile", "performance")
CAPABILITIES = (*CONTRACTS, *DTYPES, *FEATURES)


class RequirementsError(SglangFlError):
    """A ``requirements.py`` that is missing, or that claims what there is not."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What is tested, and what it claims. Every capability is open unless it is closed with a reason.

    Attributes:
        plugin: the backend's entry point in the group ``sglang_fl``; ``"reference"`` for core's own.
        platform: the name of the ``Platform`` record that the backend is asked to serve.
        implementation: the ``impl_id`` of the ops that are tested; None where the backend has no ops.
        communicator: the name of the ``Communicator`` record that is tested; None where the backend has none.
        sdk: top-level modules that the backend's hooks must not import.
        closed: capability -> why the backend does not have it. The capabilities are the ops, the dtypes ``float32``,
            ``float16`` and ``bfloat16``, and ``serving``, ``attention``, ``collectives``, ``graphs``, ``compile``,
            ``performance``.
        device: torch's name for where tensors are made, when that is not the platform's own device.
        simulated_by: what stands for the device then, for the report.

    Raises RequirementsError for a capability that there is not, or one closed without a reason.
    """

    plugin: str
    platform: str
    implementation: str | None = None
    communicator: str | None = None
    sdk: tuple[str, ...] = ()
    closed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    device: str | None = None
    simulated_by: str | None = None

    def __post_init__(self) -> None:
        for capability, reason in self.closed.items():
            if capability not in CAPABILITIES:
                raise _wrong(f"the capability {capability!r} closed", "no such", nearest(capability, CAPABILITIES))
            if not (isinstance(reason, str) and reason.strip()):
                raise _wrong(f"{capability!r} closed", f"the reason {reason!r}", "say why in a few words")
        if _is_text(self.sdk):
            raise _wrong(f"sdk={self.sdk!r}", "one text", f"write sdk=({self.sdk!r},)")
        if self.implementation is None and self.communicator is None:
            raise _wrong("a subject", "neither an implementation nor a communicator", "name one or both")
        if (self.device is None) != (self.simulated_by is None):
            raise _wrong("a stand-in for the device", "half of it", "give both device= and simulated_by=, or neither")

    def why_closed(self, capability: str) -> str | None:
        """The reason against ``capability``, or None while it is open."""
        if capability in CONTRACTS and self.implementation is None:
            return "requirements.py names no implementation"
        if capability == "collectives" and self.communicator is None:
            return "requirements.py names no communicator"
        return self.closed.get(capability)

    @property
    def subject(self) -> str:
        """What is tested."""
        return " and ".join(name for name in (self.implementation, self.communicator) if name is not None)


def load_requirements(folder: Path) -> Requirements:
    """The variable ``requirements`` of ``requirements.py`` in ``folder``. Raises RequirementsError without one."""
    path = folder / FILE
    if not path.is_file():
        raise _wrong(f"the claims in {folder}", f"no {FILE}", "write one beside the file that imports the suite")
    # By its path: several subjects may be tested in one process, each with a module of this name.
    spec = importlib.util.spec_from_file_location(f"_sglang_fl_requirements_of_{folder.name}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, VARIABLE, None)
    if not isinstance(found, Requirements):
        do = f"write {VARIABLE} = Requirements(plugin=..., platform=..., implementation=...)"
        raise _wrong(f"the variable {VARIABLE!r} in {path}", f"{found!r:.60}", do)
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _wrong(asked: str, found: str, do: str) -> RequirementsError:
    return RequirementsError(FILE, asked=asked, found=found, do=do)
