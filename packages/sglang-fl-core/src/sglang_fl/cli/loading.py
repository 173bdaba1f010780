"""What the commands look at: this machine as a process of SGLang would find it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from sglang_fl import declarations
from sglang_fl.cli.variables import check_variables
from sglang_fl.declarations import Declared
from sglang_fl.errors import PlatformError, SettingsError, SglangFlError
from sglang_fl.plugins import CORE, Offer, Plugin, Plugins, Record
from sglang_fl.settings import Settings, early_settings

if TYPE_CHECKING:
    from sglang_fl.records import AtenOp
    from sglang_fl.session import Session


def start() -> Session:
    """All that a process of SGLang's would know. Raises SglangFlError for what would stop it there."""
    with redirect_stdout(sys.stderr):  # stdout is the answer's, and a backend's SDK may greet
        try:
            import torch  # noqa: F401, PLC0415 - it costs seconds, which not every command needs
        except (ImportError, OSError) as error:
            raise PlatformError(
                CORE,
                asked="PyTorch",
                found=f"{type(error).__name__}: {error}",
                do=_install_torch(),
            ) from error
        from sglang_fl.session import Session  # noqa: PLC0415 - it imports torch

        return Session.start(os.environ)


def _install_torch() -> str:
    try:
        release = Version(importlib.metadata.version("torch")).public  # any build of it will do
    except importlib.metadata.PackageNotFoundError:
        return "pip install torch"
    return f'pip install --force-reinstall "torch=={release}"'


def start_and_note() -> Session:
    """As :func:`start`. What keeps SGLang from using any of it is noted on stderr, since the answer is on stdout."""
    session = start()
    for obstacle in check_variables(os.environ, session.settings, session.platform):
        print(f"note: {obstacle.subject} is {obstacle.found}", file=sys.stderr)
    return session


def load_plugins() -> Plugins:
    """The plugins alone, loaded even where other settings than ``disabled_plugins`` cannot be read."""
    with redirect_stdout(sys.stderr):
        return Plugins.load(early().disabled_plugins)


def collect(plugins: Plugins, hook: str, kind: type[Record], **arguments: Any) -> list[Offer[Record]]:
    """The records that a hook returns."""
    with redirect_stdout(sys.stderr):
        return plugins.collect(hook, kind, **arguments)


def declared_settings(plugins: Plugins) -> Declared:
    """The settings that the plugins add, each with its distribution."""
    with redirect_stdout(sys.stderr):
        return declarations.declared_settings(plugins)


def aten_ops(session: Session) -> tuple[Offer[AtenOp], ...]:
    """What the plugins replace of PyTorch's own, or would. Raises SglangFlError for what would stop a worker."""
    with redirect_stdout(sys.stderr):
        return session.aten_ops()


def early() -> Settings:
    """The settings that are read before plugins are loaded, or what of them says which plugins not to load."""
    try:
        return early_settings(os.environ)
    except SettingsError:
        variable = "SGLANG_FL_DISABLED_PLUGINS"
        return early_settings({variable: os.environ.get(variable, "")})


def problem_of(plugin: Plugin, stopped_by: SglangFlError | None) -> SglangFlError | None:
    """Why ``plugin`` is left out, or None. It may be what stopped :func:`start`: a hook failed that only that calls."""
    its_own = stopped_by is not None and stopped_by.who == str(plugin)
    return plugin.problem or (stopped_by if its_own else None)


def quietly() -> None:
    """Keeps the log of left-out plugins off the terminal, for a command that shows them itself."""
    logging.getLogger("sglang_fl").addHandler(logging.NullHandler())
