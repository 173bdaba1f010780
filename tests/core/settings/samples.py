"""Values of every setting that may stand in the YAML file, drawn as YAML holds them, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from sglang_fl.records import Setting
from sglang_fl.settings import FrozenMapping, Settings, load_settings

# The settings that sglang-fl-flaggems declares, as the predecessor documents them.
FLAGGEMS = "sglang-fl-flaggems"
FLAGGEMS_SETTINGS = [
    (FLAGGEMS, Setting(key="use_flaggems", type=bool, default=True, help="ATen ops", env="USE_FLAGGEMS")),
    (FLAGGEMS, Setting(key="flagos_blacklist", type=tuple[str, ...], default=(), help="ATen ops to leave out")),
    (
        FLAGGEMS,
        Setting(
            key="flagos_whitelist",
            type=tuple[str, ...] | None,
            default=None,
            help="the only ATen ops",
            excludes="flagos_blacklist",
        ),
    ),
]

NAMES = st.from_regex(r"[A-Za-z_][\w.-]{0,7}", fullmatch=True)
LISTS = st.lists(NAMES, max_size=3)
FILLED_LISTS = st.lists(NAMES, min_size=1, max_size=3)
TOKENS = st.sampled_from(["flagos", "vendor", "reference"]) | st.builds(
    "{}:{}".format, st.sampled_from(["vendor", "impl"]), NAMES
)
ORDERS = st.dictionaries(NAMES, st.lists(TOKENS, min_size=1, max_size=3), max_size=3)
PATHS = NAMES.map("/tmp/{}".format)

IN_YAML: Mapping[str, st.SearchStrategy[Any]] = {
    "platform": NAMES,
    "prefer": st.sampled_from(["flagos", "vendor", "reference"]),
    "op_backends": ORDERS,
    "strict": st.booleans(),
    "allow_vendors": LISTS,
    "deny_vendors": LISTS,
    "oot_enabled": st.booleans(),
    "oot_blacklist": LISTS,
    "oot_whitelist": LISTS,
    "communicator": NAMES,
    "communicator_timeout": st.integers(1, 86400) | st.floats(0.001, 86400),
    "disabled_plugins": LISTS,
    "log_level": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR"]),
    "dispatch_log": PATHS,
    "trace": st.lists(st.sampled_from(["hooks", "select", "calls"]), unique=True),
    "trace_dir": PATHS,
}
VARIABLES = {key: f"SGLANG_FL_{key.upper()}" for key in IN_YAML} | {
    "op_backends": "SGLANG_FL_PER_OP",
    "communicator": "SGLANG_FL_DIST_BACKEND",
}


def as_text(value: Any) -> str:
    """The value as one writes it in a variable."""
    if isinstance(value, dict):
        return ";".join(f"{op}={'|'.join(order)}" for op, order in value.items()) or ";"
    if isinstance(value, list):
        return ",".join(value) or ","
    return str(value)


def meaning(key: str, value: Any) -> Any:
    """What the value, as YAML holds it, is in :class:`Settings`."""
    if isinstance(value, dict):
        return FrozenMapping({op: tuple(order) for op, order in value.items()})
    if isinstance(value, list):
        return frozenset(value) if key == "trace" else tuple(value)
    return Path(value) if key in ("trace_dir", "dispatch_log") else value


def load_yaml(directory: Path, content: str | Mapping[str, Any], *args: Any, **variables: str) -> Settings:
    """The settings of a YAML file with this content, besides which ``variables`` are set."""
    path = directory / "my.yaml"
    text = content if isinstance(content, str) else yaml.safe_dump(dict(content), allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return load_settings({"SGLANG_FL_CONFIG": str(path)} | variables, *args)
