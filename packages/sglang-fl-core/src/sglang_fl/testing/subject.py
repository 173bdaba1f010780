"""Finds what a ``requirements.py`` names, among what is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
import torch

from sglang_fl.errors import nearest
from sglang_fl.platforms import unavailability
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.records import Communicator, OpImpl, Platform
from sglang_fl.testing.configuration import settings_for
from sglang_fl.testing.requirements import DTYPES, FILE, Requirements, RequirementsError, load_requirements
from sglang_fl.testing.under_test import EXAMPLES, OpUnderTest

Found = TypeVar("Found")

REFERENCE = "reference"
"""The name of core's own plugin."""


@dataclass(frozen=True)
class Subject:
    """The backend that is tested.

    Attributes:
        requirements: what it claims.
        plugin: its registered module.
        platform: the platform's record.
        impls: op -> the record of the implementation that is named; of no other.
        references: op -> the record of the reference implementation.
        communicator: the record of the communicator that is named.
    """

    requirements: Requirements
    plugin: Plugin
    platform: Platform
    impls: Mapping[str, OpImpl]
    references: Mapping[str, OpImpl] = field(default_factory=dict)
    communicator: Communicator | None = None

    @classmethod
    def find(cls, requirements: Requirements) -> Subject:
        """Loads the installed plugins and picks what ``requirements`` names.

        Raises RequirementsError for what is not there, and PluginError for a plugin that is broken.
        """
        plugins = Plugins.load()
        platforms = [offer.record for offer in plugins.collect("sglang_fl_register_platforms", Platform)]
        plugin = _named("plugin", requirements.plugin, {plugin.name: plugin for plugin in plugins})
        platform = _named("platform", requirements.platform, {platform.name: platform for platform in platforms})
        ops = plugins.collect("sglang_fl_register_ops", OpImpl, platform=platform)
        communicators = plugins.collect(
            "sglang_fl_register_communicators",
            Communicator,
            platform=platform,
            settings=settings_for(plugins, platform),
        )
        if plugin.problem is not None:
            raise plugin.problem
        own = [offer.record for offer in ops if offer.plugin is plugin]
        impls = {impl.op: impl for impl in own if impl.impl_id == requirements.implementation}
        if requirements.implementation is not None:
            _named("implementation", requirements.implementation, {impl.impl_id: impl for impl in own})
        offered = {offer.record.name: offer.record for offer in communicators if offer.plugin is plugin}
        named = requirements.communicator
        communicator = None if named is None else _named("communicator", named, offered)
        references = {offer.record.op: offer.record for offer in ops if offer.plugin.name == REFERENCE}
        return cls(requirements, plugin, platform, impls, references, communicator)

    @property
    def name(self) -> str:
        """What is tested, for people."""
        origin = f"{self.plugin.distribution} {self.plugin.version}".rstrip()
        return f"{self.requirements.subject} of {origin}"

    @cached_property
    def unavailable(self) -> str | None:
        """Why nothing can be run here, or None. A stand-in for the device is there when it is named."""
        if self.requirements.simulated_by is not None:
            return None
        reason = unavailability(self.platform.is_available)
        return None if reason is None else f"the platform {self.platform.name!r} is not available here: {reason}"

    @property
    def device(self) -> torch.device:
        """Where tensors are made."""
        if self.requirements.device is None:
            self.device_module()  # an SDK may have to be imported before torch knows the device
        return torch.device(self.requirements.device or self.platform.device_type)

    def device_module(self) -> ModuleType:
        """The module with ``synchronize`` and the like."""
        named = self.platform.device_module
        return importlib.import_module(named) if named else torch.get_device_module(self.platform.device_type)

    @cached_property
    def device_name(self) -> str:
        """The device, for people."""
        if self.requirements.simulated_by is not None:
            return f"{self.requirements.device}, simulated by {self.requirements.simulated_by}"
        if self.unavailable is not None:
            return "none"
        return self.platform.device_name(0) if self.platform.device_name else _torch_name(self.device)

    @property
    def versions(self) -> dict[str, str]:
        """What the result stands on: distribution -> version."""
        found = {name: _version(name) for name in ("sglang-fl-core", "sglang", "torch", "triton")}
        return {name: version for name, version in found.items() if version is not None}

    @property
    def header(self) -> str:
        """One line: the subject, its versions, its device."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"conformance: {self.name} on {self.platform.name} ({self.device_name}); {versions}"

    def require_device(self) -> None:
        """Skips the test where the platform is not available."""
        if self.unavailable is not None:
            pytest.skip(self.unavailable)

    def require_real_device(self, what: str) -> None:
        """Skips the test where the platform is not available, or something stands for its device."""
        self.require_device()
        if self.requirements.simulated_by is not None:
            pytest.skip(f"{what} needs the device itself: here it is {self.device_name}")

    def require_open(self, capability: str) -> None:
        """Skips the test of a capability that is closed."""
        reason = self.requirements.why_closed(capability)
        if reason is not None:
            pytest.skip(f"{capability} is closed: {reason}")

    def require_graphs(self) -> None:
        """Skips the test where SGLang captures no graphs."""
        platform = self.platform
        if "graph_capture" not in platform.capabilities and not (platform.in_tree and platform.device_type != "cpu"):
            pytest.skip(f"the platform {platform.name!r} does not claim graph_capture: SGLang captures nothing on it")

    def op(self, name: str, examples: int = EXAMPLES) -> OpUnderTest:
        """The implementation of one op. Skips where there is no device, fails where it cannot serve on one."""
        self.require_device()
        if name not in self.impls:
            do = f"offer it, or close it in requirements.py: closed={{{name!r}: 'why'}}"
            pytest.fail(f"{self.name} claims {name}, and offers none on {self.platform.name!r}; {do}", pytrace=False)
        impl = self.impls[name]
        simulated = self.requirements.simulated_by is not None
        reason = None if simulated else unavailability(impl.is_available)
        if reason is not None:
            pytest.fail(f"{self.name} claims {name}, and says that it is not available: {reason}", pytrace=False)
        dtypes = tuple(getattr(torch, dtype) for dtype in DTYPES if self.requirements.why_closed(dtype) is None)
        return OpUnderTest(impl, self.device, dtypes, examples, self.plugin.distribution)


_SUBJECTS = pytest.StashKey[dict[Path, Subject]]()


def subject_of(config: pytest.Config, folder: Path) -> Subject:
    """The subject of the tests in ``folder``, found once in a run."""
    subjects = config.stash.setdefault(_SUBJECTS, {})
    if folder not in subjects:
        subjects[folder] = Subject.find(load_requirements(folder))
    return subjects[folder]


def subjects_of(config: pytest.Config) -> Mapping[Path, Subject]:
    """All subjects of this run, by the folders of their tests."""
    return config.stash.get(_SUBJECTS, {})


def _named(what: str, name: str, offered: Mapping[str, Found]) -> Found:
    if name in offered:
        return offered[name]
    found = f"only {', '.join(sorted(offered))}" if offered else "none"
    do = f"{nearest(name, offered)} Install the backend (pip install -e .), and see `sglang-fl plugins`"
    raise RequirementsError(FILE, asked=f"the {what} {name!r}", found=found, do=do)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_name(device: torch.device) -> str:
    told = getattr(torch.get_device_module(device), "get_device_name", None)
    return str(told(0)) if told is not None else device.type
