"""What can be set: core's own settings, each with its default and its meaning, and where a value came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import Field

from sglang_fl.records import Setting
from sglang_fl.settings.forms import FrozenMapping, LogLevel, Name, Names, Orders, Prefer, Traced, plain

CORE = "sglang-fl-core"
"""The distribution that speaks."""

Kind = Literal["code", "platform", "yaml", "environment"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: which of the four sources.
        detail: where in it, e.g. ``"SGLANG_FL_PREFER"`` or ``"/etc/my.yaml: prefer"``.
        over: the next lower source that set the same key, and lost.
    """

    kind: Kind
    detail: str
    over: Origin | None = None

    def __str__(self) -> str:
        return self.detail if self.over is None else f"{self.detail}, over {self.over}"


class Row(NamedTuple):
    """One line of ``sglang-fl config``, in JSON's types."""

    key: str
    value: Any
    origin: str
    help: str


class Key(NamedTuple):
    """What a :class:`Setting` record says besides key, type and default, beside a field of :class:`Settings`."""

    help: str
    env: str | None = None
    excludes: str | None = None


_NONE: FrozenMapping[str, Any] = FrozenMapping()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every effective value. Hashable, picklable, and equal when the values are, wherever they came from.

    Core's settings are attributes, typed and explained below; ``of_backends`` holds those that backends declare,
    by key.
    """

    enabled: Annotated[bool, Key("use the plugin; 0 leaves SGLang untouched")] = True
    config: Annotated[Path | None, Key("the YAML file with settings")] = None
    platform: Annotated[Name | None, Key("the platform to serve on; null: the best available")] = None
    prefer: Annotated[Prefer | None, Key("flagos, vendor or reference first; null: declared priorities decide")] = None
    op_backends: Annotated[
        Orders,
        Key(
            "the order for an op, of flagos, vendor, reference, vendor:NAME, impl:ID; the first available serves",
            env="SGLANG_FL_PER_OP",
        ),
    ] = _NONE
    strict: Annotated[bool, Key("no fallback: what cannot be had as asked is an error")] = False
    allow_vendors: Annotated[Names | None, Key("the only vendors that may serve; null: every vendor")] = None
    deny_vendors: Annotated[Names, Key("vendors that may not serve")] = ()
    oot_enabled: Annotated[bool, Key("serve SGLang's fused ops; false leaves all of them to SGLang")] = True
    oot_blacklist: Annotated[Names, Key("SGLang classes or ops to leave to SGLang", excludes="oot_whitelist")] = ()
    oot_whitelist: Annotated[Names, Key("the only SGLang classes or ops to serve; empty: all")] = ()
    communicator: Annotated[
        Name | None,
        Key(
            "the communicator of SGLang's groups; the platform's own backend is SGLang's; null: the best by priority",
            env="SGLANG_FL_DIST_BACKEND",
        ),
    ] = None
    communicator_timeout: Annotated[
        float, Field(gt=0, le=86400), Key("the seconds that a group's ranks have to start a communicator")
    ] = 120.0
    disabled_plugins: Annotated[Names, Key("plugins not to load")] = ()
    log_level: Annotated[LogLevel, Key("the least severe message to log")] = "INFO"
    dispatch_log: Annotated[
        Path | None, Key("a file that receives one line per layer class bound, when a model has loaded")
    ] = None
    trace: Annotated[Traced, Key("what to trace: any of hooks, select, calls")] = frozenset()
    trace_dir: Annotated[Path, Key("the directory of the trace files, one per process")] = Path("sglang-fl-trace")
    of_backends: Mapping[str, Any] = _NONE
    origins: Mapping[str, Origin] = field(default=_NONE, compare=False, repr=False)
    backend_help: Mapping[str, str] = field(default=_NONE, compare=False, repr=False)

    def origin(self, key: str) -> Origin:
        """Where the value of ``key`` came from. Raises KeyError where ``key`` is no setting."""
        if key not in _CORE_HELP and key not in self.of_backends:
            raise KeyError(key)
        return self.origins.get(key, DEFAULT)

    def explain(self) -> list[Row]:
        """Every setting: core's in the order of the class, then those of backends."""
        values = {key: getattr(self, key) for key in _CORE_HELP} | dict(self.of_backends)
        meanings = _CORE_HELP | dict(self.backend_help)
        return [Row(key, plain(value), str(self.origin(key)), meanings[key]) for key, value in values.items()]


def _core_settings() -> Iterator[Setting]:
    types = get_type_hints(Settings, include_extras=True)
    for declared in fields(Settings):
        for key in get_args(types[declared.name]):
            if isinstance(key, Key):
                yield Setting(key=declared.name, type=types[declared.name], default=declared.default, **key._asdict())


DEFAULT = Origin("code", "default")
CORE_SETTINGS = tuple(_core_settings())
"""Core's settings as the records that backends declare theirs by: both are read, checked and shown alike."""

_CORE_HELP = {setting.key: setting.help for setting in CORE_SETTINGS}
