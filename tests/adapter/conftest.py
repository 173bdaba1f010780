"""SGLang's own layers on the adapter's platform. Its import takes seconds, so it waits for the first test in need."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def layers() -> Iterator[SimpleNamespace]:
    """SGLang's layer classes, by name."""
    from sglang.srt.layers import activation, layernorm
    from sglang.srt.layers.rotary_embedding import base, mrope, rope_variant

    from sglang_fl.adapter.platform import out_of_tree_class
    from sglang_fl.reference.hooks import sglang_fl_register_platforms

    cpu = next(platform for platform in sglang_fl_register_platforms() if platform.name == "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "current_platform", out_of_tree_class(cpu)())
        modules = (activation, layernorm, mrope, rope_variant, base)
        yield SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield
