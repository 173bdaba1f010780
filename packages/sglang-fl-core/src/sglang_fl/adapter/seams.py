"""What differs between SGLang's releases: each entry with the release that it starts at."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TypeVar

from packaging.version import Version

from sglang_fl.errors import SeamError

T = TypeVar("T")

OLDEST, NEWEST = Version("0.5.17"), Version("0.5.23")
PRIMARY = NEWEST

# The one method in which a layer picks its forward.
FORWARD_CHOICE: Mapping[str, str] = {
    "0.5.17": "sglang.srt.layers.utils.multi_platform.MultiPlatformOp.dispatch_forward",
    "0.5.18": "sglang.kernels.fused_op.BaseFusedOp._resolve_forward_method",
}

# The class of the layers that do so.
FUSED_OP: Mapping[str, str] = {
    "0.5.17": "sglang.srt.layers.utils.multi_platform:MultiPlatformOp",
    "0.5.18": "sglang.kernels.fused_op:BaseFusedOp",
}

# Where a layer gives way to SGLang's PyTorch code, which torch.compile then sees.
ENTER_COMPILE: Mapping[str, str] = {
    "0.5.17": "sglang.srt.layers.utils.multi_platform.MultiPlatformOp.enter_torch_compile",
    "0.5.18": "sglang.kernels.fused_op.BaseFusedOp.enter_torch_compile",
}

# Where a worker loads its model. The module is imported by model workers only, and after plugins are loaded.
LOAD_MODEL: Mapping[str, str] = {"0.5.17": "sglang.srt.model_executor.model_runner.ModelRunner.load_model"}

# The class of SGLang's groups of ranks. Workers import its module before they load plugins.
GROUP_COORDINATOR: Mapping[str, str] = {"0.5.17": "sglang.srt.distributed.parallel_state.GroupCoordinator"}

# What makes a group, and, until 0.5.22, gives it NCCL on every device that SGLang does not know.
MAKE_GROUP: Mapping[str, str] = {"0.5.17": "sglang.srt.distributed.parallel_state.init_model_parallel_group"}
ASKS_FOR_PYNCCL: Mapping[str, bool] = {"0.5.17": False, "0.5.23": True}

# Until 0.5.21 an out-of-tree platform must name the cache classes, SGLang's own among them.
KV_POOLS_BY_HOOK: Mapping[str, bool] = {"0.5.17": True, "0.5.22": False}

# Forces one kernel backend on every layer, ahead of any choice that a layer makes.
FORCED_BACKEND: Mapping[str, str | None] = {
    "0.5.17": None,
    "0.5.18": "sglang.kernels.fused_op:get_fused_op_backend",
}


def sglang_version() -> Version:
    """The installed SGLang's version. Raises SeamError when there is none."""
    try:
        return Version(importlib.metadata.version("sglang"))
    except importlib.metadata.PackageNotFoundError:
        raise SeamError(
            "sglang-fl-core", asked="SGLang", found="not installed", do='pip install "sglang-fl-core[sglang]"'
        ) from None


def at(seam: Mapping[str, T], version: Version) -> T:
    """The entry of ``seam`` that holds for ``version``; the oldest one for a release before all of them."""
    started = [start for start in seam if Version(start) <= version]
    return seam[started[-1] if started else next(iter(seam))]


def unapplied(target: str) -> SeamError:
    """What there is to say about a hook that is registered, but that SGLang did not apply."""
    return SeamError(
        "sglang-fl-core",
        asked=f"a hook on SGLang's {target}",
        found="SGLang did not apply it; its log says why",
        do=f"pip install sglang=={PRIMARY}, or see whether another plugin replaces it",
    )


def unsupported(version: Version) -> SeamError | None:
    """What there is to say about a release that the adapter was never run with, or None."""
    if OLDEST <= version <= NEWEST:
        return None
    return SeamError(
        "sglang-fl-core",
        asked=f"SGLang {OLDEST} to {NEWEST}",
        found=f"SGLang {version}, which this release of sglang-fl-core was never run with",
        do=f"pip install sglang=={PRIMARY}",
    )
