"""Where kernels run in this process: on a GPU, or in Triton's interpreter on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton reads it when it is imported: test_interpreted.py starts a process that has it."""

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

on_device = [] if INTERPRETED else [pytest.mark.gpu]
"""What marks the tests that run kernels."""

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(INTERPRETED, reason="needs a CUDA GPU")]
"""What marks those that the interpreter cannot run."""
