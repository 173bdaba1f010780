from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.flaggems.device import INTERPRETED

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs a device to run kernels on: a GPU, or Triton's interpreter, in a process of test_interpreted.py.

    The conformance suite is long on a GPU, where a kernel is compiled for each shape: only when it is asked for.
    """
    if collection_path == HERE / "kernels":
        return not (INTERPRETED or torch.cuda.is_available()) or None
    if collection_path == HERE / "conformance":
        named = any(
            Path(argument.partition("::")[0]).absolute().is_relative_to(HERE / "conformance")
            for argument in config.args
        )
        return not (named and (INTERPRETED or torch.cuda.is_available())) or None
    return None
