from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.cuda import stand_ins
from tests.cuda.backend import Backend

MODULES = ("activation", "normalization", "layer_norm", "rotary")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The conformance suite is of CUDA devices."""
    return (collection_path.name == "conformance" and not torch.cuda.is_available()) or None


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The ops: with real kernels on a GPU, and with stand-ins on the CPU."""
    device = torch.device(request.param)
    if device.type == "cuda":
        return Backend(device, _imported())
    with pytest.MonkeyPatch.context() as patch, _present(stand_ins.modules()):
        patch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        return Backend(device, _imported())


def _imported() -> dict[str, ModuleType]:
    return {name: importlib.import_module(f"sglang_fl_cuda.{name}") for name in MODULES}


@contextmanager
def _present(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """``modules`` can be imported meanwhile. Ours are imported anew, and forgotten: they hold on to their kernels."""
    ours = [f"sglang_fl_cuda.{name}" for name in MODULES]
    before = {name: sys.modules.pop(name, None) for name in [*ours, *modules]}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
