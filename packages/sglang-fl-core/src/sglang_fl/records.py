"""What a backend's hooks return: frozen records. Building one imports no SDK and has no effect."""

from __future__ import annotations

import enum
import pkgutil
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

Reason = str
Answer = bool | Reason
"""``True``, or the reason why not (``False`` gives none)."""


def refusal(answer: Answer) -> Reason | None:
    """Why ``answer`` is a no, or None when it is a yes. What is no text counts by its truth: numpy has bools too."""
    if isinstance(answer, str):
        return answer or "no reason given"
    return None if answer else "no reason given"


class BackendImplKind(str, enum.Enum):
    """Where an implementation comes from. Settings name these by value."""

    DEFAULT = "flagos"
    VENDOR = "vendor"
    REFERENCE = "reference"

    def __str__(self) -> str:
        return self.value


class BackendPriority(enum.IntEnum):
    """The priority of a kind, for a record that declares none. Higher is preferred."""

    DEFAULT = 150
    VENDOR = 100
    REFERENCE = 50


def always() -> Answer:
    """Available on every machine."""
    return True


@dataclass(frozen=True, kw_only=True)
class OpImpl:
    """One implementation of one op.

    Attributes:
        op: a name in :data:`sglang_fl.ops.CONTRACTS`.
        impl_id: unique among the implementations of ``op``, e.g. ``"vendor.ascend"``.
        kind: where it comes from.
        fn: the function, with the op's signature, or ``"module:attribute"``, imported when it is first bound.
        vendor: required when ``kind`` is VENDOR; settings allow, deny and order by it.
        priority: higher is preferred; the kind's :class:`BackendPriority` when not declared.
        is_available: asked once, at start, before ``fn`` is loaded; answers True or the reason why not.
        accepts: takes what ``fn`` takes; asked before every call; answers True or the reason why not.
            Leave it out when ``fn`` serves every legal call: then a bound call costs nothing extra.
        mutates: the arguments that ``fn`` overwrites. The op's contract says which it may.
        graph_safe: may be captured in a device graph.
        traceable: ``torch.compile`` can look into ``fn``. Where it cannot (a kernel library that logs, say), compiled
            code calls ``fn`` through a custom op that core makes.
    """

    op: str
    impl_id: str
    kind: BackendImplKind
    fn: Callable[..., Any] | str
    vendor: str | None = None
    priority: int | None = None
    is_available: Callable[[], Answer] = always
    accepts: Callable[..., Answer] | str | None = None
    mutates: tuple[str, ...] = ()
    graph_safe: bool = True
    traceable: bool = True

    def __post_init__(self) -> None:
        _require(isinstance(self.op, str) and self.op != "", "op", self.op, "the name of an op")
        _require(isinstance(self.impl_id, str) and self.impl_id != "", "impl_id", self.impl_id, "a name")
        _require(isinstance(self.kind, BackendImplKind), "kind", self.kind, "a BackendImplKind")
        _require(_is_target(self.fn), "fn", self.fn, 'a function or "module:attribute"')
        _require(self.accepts is None or _is_target(self.accepts), "accepts", self.accepts, "a function")
        _require(callable(self.is_available), "is_available", self.is_available, "a function")
        has_vendor = isinstance(self.vendor, str) and self.vendor != ""
        needs_none = self.vendor is None and self.kind is not BackendImplKind.VENDOR
        _require(has_vendor or needs_none, "vendor", self.vendor, "the vendor's name")
        _require(_is_names(self.mutates), "mutates", self.mutates, "a tuple of argument names")
        _require(isinstance(self.graph_safe, bool), "graph_safe", self.graph_safe, "True or False")
        _require(isinstance(self.traceable, bool), "traceable", self.traceable, "True or False")
        if self.priority is None:
            object.__setattr__(self, "priority", int(BackendPriority[self.kind.name]))
        _check_priority(self.priority)

    def load(self) -> Callable[..., Any]:
        """The function itself, imported now when it was declared by name."""
        return _load(self.fn)

    def load_accepts(self) -> Callable[..., Answer] | None:
        """The ``accepts`` function, imported now when it was declared by name."""
        return None if self.accepts is None else _load(self.accepts)


Capability = Literal["triton", "graph_capture", "pynccl", "hicache_kernels", "pinned_memory"]
_CAPABILITIES = frozenset(get_args(Capability))
_KV_POOLS = frozenset({"mha", "mla", "dsa"})


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a vendor knows about a device, in no SGLang release's terms.

    Attributes:
        name: what ``SGLANG_FL_PLATFORM`` calls it, e.g. ``"ascend"``.
        device_type: torch's name for the device, e.g. ``"npu"``.
        is_available: is such a device in this machine? True, or the reason why not.
        in_tree: SGLang has a platform of its own for the device. It stays in charge of the device, and of
            everything below this line; the plugin only serves its ops.
        priority: which platform wins when several are available. Higher is preferred.
        total_memory: ``(device_index) -> bytes``.
        used_memory: ``(device_index) -> bytes`` in use.
        device_name: ``(device_index) -> str`` for people.
        device_module: the module with ``synchronize`` and the like, as ``"module"``; torch's own for
            ``device_type`` when None.
        distributed_backend: ``torch.distributed``'s name for the device's collectives.
        attention_backend: SGLang's attention backend when the user names none.
        graph_runner: ``"module:class"`` of the decode graph runner, when ``graph_capture`` is a capability.
        kv_pools: ``"mha" | "mla" | "dsa"`` -> ``"module:class"``; SGLang's own for what is left out.
        paged_allocator: ``"module:class"``; SGLang's own when None.
        capabilities: what the device can do beyond the above.
        server_args: SGLang's server arguments to set, where they are at SGLang's own default.
    """

    name: str
    device_type: str
    is_available: Callable[[], Answer]
    in_tree: bool = False
    priority: int = int(BackendPriority.VENDOR)
    total_memory: Callable[[int], int] | None = None
    used_memory: Callable[[int], int] | None = None
    device_name: Callable[[int], str] | None = None
    device_module: str | None = None
    distributed_backend: str = "gloo"
    attention_backend: str = "torch_native"
    graph_runner: str | None = None
    kv_pools: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    paged_allocator: str | None = None
    capabilities: frozenset[Capability] = frozenset()
    server_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and self.name != "", "name", self.name, "a name")
        is_type = isinstance(self.device_type, str) and self.device_type != ""
        _require(is_type, "device_type", self.device_type, "a torch device type")
        _require(callable(self.is_available), "is_available", self.is_available, "a function")
        _check_priority(self.priority)
        known = isinstance(self.capabilities, Set) and self.capabilities <= _CAPABILITIES
        _require(known, "capabilities", self.capabilities, f"a set, of {', '.join(sorted(_CAPABILITIES))}")
        pools = isinstance(self.kv_pools, Mapping) and self.kv_pools.keys() <= _KV_POOLS
        _require(pools, "kv_pools", self.kv_pools, f"a mapping, from any of {', '.join(sorted(_KV_POOLS))}")
        _require(
            self.in_tree or callable(self.total_memory),
            "total_memory",
            self.total_memory,
            "a function: SGLang sizes its cache by it on a device that it does not know",
        )
        _require(
            "graph_capture" not in self.capabilities or self.in_tree or self.graph_runner is not None,
            "graph_runner",
            self.graph_runner,
            '"module:class", since graph_capture is among the capabilities',
        )


@dataclass(frozen=True, kw_only=True)
class Communicator:
    """A way to run the collectives of one process group.

    Attributes:
        name: what ``SGLANG_FL_DIST_BACKEND`` calls it, e.g. ``"flagcx"``.
        create: ``(group) -> collectives``, or ``"module:attribute"``, imported in the workers only. Called in every
            rank of a group; :mod:`sglang_fl.communication.collectives` says what it is given and what it gives back.
        is_available: asked once in every process, before ``create`` is loaded; True, or the reason why not.
        vendor: whose it is, when it is a vendor's; settings allow and deny by it.
        priority: higher is preferred. Above the reference's 50 it goes before SGLang's own unasked.
    """

    name: str
    create: Callable[..., Any] | str
    is_available: Callable[[], Answer] = always
    vendor: str | None = None
    priority: int = int(BackendPriority.VENDOR)

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and self.name != "", "name", self.name, "a name")
        _require(_is_target(self.create), "create", self.create, 'a function or "module:attribute"')
        _require(callable(self.is_available), "is_available", self.is_available, "a function")
        _check_priority(self.priority)

    def load(self) -> Callable[..., Any]:
        """The ``create`` function itself, imported now when it was declared by name."""
        return _load(self.create)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a backend's own, read, checked and shown by core as core's own are.

    Attributes:
        key: its name in the YAML file, lower case.
        type: what it holds, as a type that pydantic understands, e.g. ``bool`` or ``tuple[str, ...]``.
        default: its value where nobody sets it.
        help: one line for people.
        env: its environment variable; ``SGLANG_FL_<KEY>`` when None.
        excludes: another key that may not be set together with this one.
    """

    key: str
    type: Any
    default: Any
    help: str
    env: str | None = None
    excludes: str | None = None

    def __post_init__(self) -> None:
        is_key = isinstance(self.key, str) and self.key.isidentifier() and self.key.islower()
        _require(is_key, "key", self.key, "a lower-case identifier")
        _require(isinstance(self.help, str) and self.help != "", "help", self.help, "one line for people")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.env or f"SGLANG_FL_{self.key.upper()}"


@dataclass(frozen=True, kw_only=True)
class AtenOp:
    """An op of PyTorch's ATen library for which a backend has a kernel that can take PyTorch's place everywhere.

    Attributes:
        name: as PyTorch registers it, e.g. ``"add.Tensor"``, and ``"mm"`` where the overload has no name.
        by: the function that takes its place, for people.
        replaced: that function serves, or would in a model worker.
        reason: what decided, or what stands in the way.
    """

    name: str
    by: str
    replaced: bool
    reason: str

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and re.fullmatch(r"\w+(\.\w+)?", self.name) is not None
        _require(is_name, "name", self.name, 'an ATen op, as in "add.Tensor"')
        _require(isinstance(self.replaced, bool), "replaced", self.replaced, "True or False")

    def covered_by(self, name: str) -> bool:
        """Does a user who writes ``name`` mean this op? A backend whose settings take names of ops says it its way."""
        return without_namespace(name) in (self.name, self.name.partition(".")[0])


def without_namespace(aten_name: str) -> str:
    """``"add.Tensor"`` for ``"aten::add.Tensor"``, ``"torch.ops.aten.add.Tensor"`` and ``"torch.add.Tensor"``."""
    return re.sub(r"^(torch\.(ops\.)?)?(aten(::|\.))?", "", aten_name)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One line of ``sglang-fl doctor``.

    Attributes:
        subject: what was looked at, e.g. ``"CANN"``.
        ok: fit to serve; None where it is only worth knowing.
        found: what is there.
        wanted: what should be there, when ``ok`` is False.
        remedy: the command that mends it, when ``ok`` is False.
    """

    subject: str
    ok: bool | None
    found: str
    wanted: str = ""
    remedy: str = ""


def _is_target(value: object) -> bool:
    return callable(value) or (isinstance(value, str) and re.fullmatch(r"[^:\s]+:[^:\s]+", value) is not None)


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _load(target: Callable[..., Any] | str) -> Callable[..., Any]:
    found = pkgutil.resolve_name(target) if isinstance(target, str) else target
    if not callable(found):
        msg = f"{target!r} is {found!r:.60}, which is no function"
        raise TypeError(msg)
    return found


def _check_priority(value: object) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    _require(is_int and value >= 0, "priority", value, "a whole number, 0 or more")  # type: ignore[operator]


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        msg = f"{name} is {value!r}, but must be {wanted}"
        raise ValueError(msg)
