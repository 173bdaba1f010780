"""Every hook that a backend can implement. A hook returns records and has no effect; only ``activate`` has one.

A backend is a distribution with one entry point in the group ``sglang_fl``, naming a module with functions
marked ``@hookimpl``. Implement the hooks you need and leave the others out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from sglang_fl.records import AtenOp, Communicator, Diagnosis, OpImpl, Platform, Setting
    from sglang_fl.settings import Settings

PROJECT = "sglang_fl"
"""pluggy's project name, and the entry-point group."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a backend's function as the implementation of the hook of the same name."""

_hookspec = pluggy.HookspecMarker(PROJECT)


@_hookspec
def sglang_fl_register_platforms() -> Iterable[Platform]:  # type: ignore[empty-body]
    """The platforms that this backend knows, whether or not this machine has them.

    Called once in every process, while ``sglang`` itself is being imported: import no SDK and no part of SGLang
    here, and look for the device in the record's ``is_available``, which is asked afterwards::

        @hookimpl
        def sglang_fl_register_platforms():
            return [Platform(name="mychip", device_type="mychip", is_available=..., total_memory=...)]
    """


@_hookspec
def sglang_fl_register_ops(platform: Platform) -> Iterable[OpImpl]:  # type: ignore[empty-body]
    """The op implementations that this backend has for ``platform``; an empty list for a foreign one.

    Called once in every process, when the platform is known. Name functions as ``"module:attribute"`` so that
    declaring them imports nothing. What cannot be done is not declared::

        @hookimpl
        def sglang_fl_register_ops(platform):
            if platform.name != "mychip":
                return []
            return [OpImpl(op="silu_and_mul", impl_id="vendor.mychip", kind=BackendImplKind.VENDOR,
                           vendor="mychip", fn="mychip_sglang.ops:silu_and_mul")]
    """


@_hookspec
def sglang_fl_register_communicators(  # type: ignore[empty-body]
    platform: Platform, settings: Settings
) -> Iterable[Communicator]:
    """The communicators that this backend has for ``platform``. Called once in every process, after the ops.

    ``settings.of_backends`` holds your own settings, for ``is_available`` and ``create`` to be made with.
    ``create(group)`` is called in every rank of a group: see docs/communicators.md.
    """


@_hookspec
def sglang_fl_register_settings() -> Iterable[Setting]:  # type: ignore[empty-body]
    """The settings that this backend adds to core's. Called once in every process, before any other hook."""


@_hookspec
def sglang_fl_default_settings(platform: Platform) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """This backend's defaults on ``platform``: a mapping with the keys of the YAML file, or an empty one.

    Called once in every process, before the ops. The user's YAML and environment go before it. Two backends that
    set one key differently are an error, so answer only for your own platform. Keep the values in a YAML file in
    your wheel.
    """


@_hookspec
def sglang_fl_activate(platform: Platform, settings: Settings) -> None:
    """Last, in each model worker, before the model is loaded: ATen overrides, patches of SGLang.

    The only hook with effects. An exception from it stops the worker.
    """


@_hookspec
def sglang_fl_aten_ops(platform: Platform, settings: Settings) -> Iterable[AtenOp]:  # type: ignore[empty-body]
    """The ATen ops that this backend has kernels for: each replaced or not, and why.

    Called in each model worker after ``sglang_fl_activate``, to tell what has really been replaced, and by
    ``sglang-fl explain --aten`` and ``sglang-fl doctor``, to tell what would be. For settings that cannot be meant,
    raise an SglangFlError in all: it reaches the user as it is.
    """


@_hookspec
def sglang_fl_diagnose(settings: Settings) -> Iterable[Diagnosis]:  # type: ignore[empty-body]
    """Lines for ``sglang-fl doctor``: SDK, driver, version; what is missing, and the command that mends it.

    Called only by the command line, on machines that may have none of it: never raise for what is absent. Where the
    settings cannot be read, ``settings.of_backends`` is empty.
    """
