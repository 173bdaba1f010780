"""Records hook calls, selections and op calls, one file per process; ``trace_report`` reads them.

Without tracing there is no tracer: callers hold None, and a call has no extra frame and no extra branch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_fl.brief import brief
from sglang_fl.errors import SettingsError, nearest
from sglang_fl.ops import contract_of
from sglang_fl.trace_file import TraceFile

if TYPE_CHECKING:
    import pluggy
    import torch

Refusal = Callable[[str, "torch.Tensor"], "str | None"]
"""(collective, tensor) -> why a communicator does not serve it, or None when it does."""

KINDS = ("hooks", "select", "calls")
"""What can be traced."""


class Tracer:
    """Writes this process's records. It changes no result, and after :meth:`start` it raises nothing of its own."""

    def __init__(self, kinds: frozenset[str], directory: Path) -> None:
        self._kinds = kinds
        self._directory = directory
        self._file = TraceFile(directory, _about_this_process)
        self._layers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    @classmethod
    def start(cls, kinds: Iterable[str], directory: Path) -> Tracer | None:
        """A tracer of ``kinds`` that writes in ``directory``, or None when ``kinds`` is empty.

        Raises SettingsError for an unknown kind, and when the directory cannot be written.
        """
        wanted = frozenset(kinds)
        if not wanted:
            return None
        for unknown in sorted(wanted - set(KINDS)):
            raise _refused(f"to trace {unknown!r} (SGLANG_FL_TRACE)", "no such kind", nearest(unknown, KINDS))
        try:
            return cls(wanted, directory)
        except OSError as error:
            asked = f"a trace in {directory} (SGLANG_FL_TRACE_DIR)"
            raise _refused(
                asked, error.strerror or str(error), "name a directory that this process can write"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A spawned child that is handed a tracer starts one of its own.
        return (Tracer.start, (self._kinds, self._directory))

    def event(self, kind: str, /, **fields: Any) -> None:
        """Records something that happens once, e.g. ``event("quarantine", op=..., reason=...)``."""
        self._file.write(kind, fields)

    def bound(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Records which layers got which implementation: op, layer_class, implementation, layers, note."""
        self.event("bound", rows=list(rows))

    def selection(self, selection: Mapping[str, Any]) -> None:
        """With ``select``: records one op's selection, as ``Selection.as_dict()`` gives it."""
        if "select" in self._kinds:
            self._file.write("select", selection)

    def communicator(self, **fields: Any) -> None:
        """With ``select``: records what a group's ranks agreed on: group, ranks, communicator, rule, reason."""
        if "select" in self._kinds:
            self._file.write("communicator", fields)

    def collectives(self, group: str, communicator: str, refusal: Refusal) -> Refusal:
        """With ``calls``: ``refusal``, which decides who serves each collective, with each decision recorded.

        Otherwise ``refusal`` itself. A collective in a graph is recorded when it is captured, not when it is replayed.
        """
        if "calls" not in self._kinds:
            return refusal
        file = self._file

        def recorded(collective: str, tensor: torch.Tensor) -> str | None:
            why = refusal(collective, tensor)
            fields = {
                "group": group,
                "collective": collective,
                "communicator": communicator if why is None else None,
                "reason": why,
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "bytes": tensor.numel() * tensor.element_size(),
            }
            file.write("collective", fields)
            return why

        return recorded

    def watch(self, plugin_manager: pluggy.PluginManager) -> None:
        """With ``hooks``: records every call of a hook through ``plugin_manager`` from now on."""
        if "hooks" in self._kinds:
            monitor = _HookMonitor(self._file)
            plugin_manager.add_hookcall_monitoring(monitor.before, monitor.after)

    def name_layers(self, model: torch.nn.Module) -> None:
        """Tells where in ``model`` each layer is, for the records of its calls."""
        for name, layer in model.named_modules():
            self._layers[layer] = name

    def recorded(self, op: str, impl_id: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """With ``calls``: ``fn``, an implementation of ``op``, with each call recorded. Otherwise ``fn`` itself.

        The time is the host's: a device that works on after the call is not waited for. Under torch.compile and
        torch.export nothing is recorded.
        """
        if "calls" not in self._kinds:
            return fn
        from torch.compiler import is_compiling  # noqa: PLC0415 - the command line reads traces without torch

        file, layer_name = self._file, self._layer_name
        parameters = tuple(contract_of(op).signature.parameters)

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if is_compiling():
                return fn(*args, **kwargs)
            arguments = {**dict(zip(parameters, args, strict=False)), **kwargs}
            fields = {"op": op, "implementation": impl_id, **layer_name(arguments.get("obj")), **_tensors(arguments)}
            began = time.monotonic_ns()
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                fields |= {"duration_ns": time.monotonic_ns() - began, "raised": brief(error)}
                file.write("call", fields, began)
                raise
            fields["duration_ns"] = time.monotonic_ns() - began
            file.write("call", fields, began)
            return result

        return call

    def _layer_name(self, layer: Any) -> dict[str, Any]:
        try:
            name = self._layers.get(layer)
        except Exception:  # not hashable, or no weak references to it: then it is no module of the model
            name = None
        return {"layer_class": type(layer).__name__, "layer": name}


class _HookMonitor:
    """pluggy's monitoring: ``before`` and ``after`` every hook call, nested ones too, in any thread."""

    def __init__(self, file: TraceFile) -> None:
        self._file = file
        self._began = _Stack()

    def before(self, hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
        self._began.times.append(time.monotonic_ns())

    def after(
        self, outcome: pluggy.Result[Any], hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]
    ) -> None:
        began = self._began.times.pop()
        duration = time.monotonic_ns() - began
        fields = {
            "hook": hook,
            "arguments": {name: brief(value) for name, value in arguments.items()},
            "plugins": [impl.plugin_name for impl in reversed(impls)],  # pluggy calls the last one first
            **_outcome(outcome, impls),
            "duration_ns": duration,
        }
        self._file.write("hook", fields, began)


class _Stack(threading.local):
    """When each hook call began that is under way in this thread."""

    def __init__(self) -> None:
        self.times: list[int] = []


def _outcome(outcome: pluggy.Result[Any], impls: Sequence[pluggy.HookImpl]) -> dict[str, Any]:
    if outcome.exception is not None:
        error = outcome.exception
        return {"results": [], "raised": {"plugin": _raiser(error, impls), "error": brief(error)}}
    result = outcome.get_result()
    return {"results": [brief(one) for one in (result if isinstance(result, list) else [result])]}


def _raiser(error: BaseException, impls: Sequence[pluggy.HookImpl]) -> str | None:
    """The plugin whose function is in the traceback; plugins that share one function cannot be told apart."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names = [impl.plugin_name for impl in impls if getattr(impl.function, "__code__", None) is frame.f_code]
        if names:
            return " or ".join(names)
    return None


def _tensors(arguments: Mapping[str, Any]) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - loaded already: an op is being called

    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    try:
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    except Exception:  # a nested tensor has none
        shapes = {}
    return {"shapes": shapes, "dtypes": {name: str(x.dtype).removeprefix("torch.") for name, x in tensors.items()}}


def _about_this_process() -> dict[str, Any]:
    return {"host": platform.node(), "argv": _without_secrets(sys.argv), "versions": _versions()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for distribution in ("sglang-fl-core", "sglang", "torch", "pluggy"):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


_SECRET = re.compile(r"--.*(key|secret|password|token)")


def _without_secrets(argv: Sequence[str]) -> list[str]:
    """The command line without what follows an option like ``--api-key``: traces are handed around."""
    shown, hide = [], False
    for word in argv:
        option, equals, _ = word.partition("=")
        secret = _SECRET.fullmatch(option) is not None
        shown.append("***" if hide else f"{option}=***" if secret and equals else word)
        hide = secret and not equals
    return shown


def _refused(asked: str, found: str, do: str) -> SettingsError:
    return SettingsError("sglang-fl-core", asked=asked, found=found, do=do)
