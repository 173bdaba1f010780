"""L1 catches a platform record that says what is not so: each test of it, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sglang_fl.testing import suite

from .subjects import platform, subject

FAULTS: dict[str, tuple[str, dict[str, Any], tuple[Any, ...]]] = {
    "memory in gigabytes": ("test_memory_is_told_in_bytes", {"total_memory": lambda index: 64}, ()),
    "memory as a fraction": ("test_memory_is_told_in_bytes", {"total_memory": lambda index: 64e9}, ()),
    "free memory for used": ("test_memory_is_told_in_bytes", {"used_memory": lambda index: 65 * 2**30}, ()),
    "no function for used memory": ("test_memory_is_told_in_bytes", {"used_memory": None}, ()),
    "no name": ("test_the_device_has_a_name", {"device_name": lambda index: ""}, ()),
    "a name in bytes": ("test_the_device_has_a_name", {"device_name": lambda index: b"Acme One"}, ()),
    "a device that keeps no numbers": (
        "test_tensors_live_on_the_device",
        {"device_type": "meta", "device_module": "torch.cpu"},
        (torch.float16,),
    ),
    "a module without synchronize": ("test_the_device_module_synchronizes", {"device_module": "math"}, ()),
    "a backend that nobody registers": (
        "test_the_distributed_backend_is_registered",
        {"distributed_backend": "accl"},
        (),
    ),
}
"""What is wrong -> the test that catches it, the record's fields, and what the test takes besides the subject."""

SOUND = {(test, arguments) for test, _, arguments in FAULTS.values()}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_platform_is_caught_by_the_test_named_for_it(name: str) -> None:
    test, fields, arguments = FAULTS[name]
    with pytest.raises((AssertionError, AttributeError, NotImplementedError)):
        getattr(suite, test)(subject(platform(**fields)), *arguments)


@pytest.mark.parametrize(("test", "arguments"), sorted(SOUND, key=str))
def test_a_sound_platform_passes(test: str, arguments: tuple[Any, ...]) -> None:
    getattr(suite, test)(subject(), *arguments)


def test_a_platform_that_no_process_comes_up_on_is_caught() -> None:
    with pytest.raises(AssertionError, match="sglang-fl doctor says of platform: "):
        suite.test_a_process_comes_up_on_the_platform(subject())  # nobody has installed it


def test_without_the_device_nothing_is_run() -> None:
    away = subject(platform(is_available=lambda: "no /dev/acme0"))
    for test, arguments in SOUND:
        with pytest.raises(pytest.skip.Exception, match="no /dev/acme0"):
            getattr(suite, test)(away, *arguments)


def test_a_stand_in_for_the_device_is_no_device() -> None:
    standing_in = subject(device="cpu", simulated_by="nothing at all")
    with pytest.raises(pytest.skip.Exception, match="memory needs the device itself: here it is cpu, simulated by"):
        suite.test_memory_is_told_in_bytes(standing_in)


def test_an_op_that_cannot_serve_on_its_device_is_a_failure() -> None:
    with pytest.raises(pytest.fail.Exception, match="claims silu_and_mul, and offers none on 'acme'"):
        subject().op("silu_and_mul")
