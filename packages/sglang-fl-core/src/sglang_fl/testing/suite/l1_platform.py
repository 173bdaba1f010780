"""L1: what the platform record says, on a machine that has the device."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from sglang_fl.testing.calls.placed import same_bits
from sglang_fl.testing.configuration import clean_environment
from sglang_fl.testing.processes import SECONDS
from sglang_fl.testing.subject import Subject

_DOCTOR = "from sglang_fl.cli import app; app()"


@pytest.mark.L1
def test_memory_is_told_in_bytes(subject: Subject) -> None:
    """SGLang sizes its cache by it."""
    subject.require_real_device("memory")
    total, used = _told(subject, "total_memory"), _told(subject, "used_memory")
    assert isinstance(total, int) and total > 2**20, f"total_memory(0) is {total!r}: answer bytes, as an int"
    assert isinstance(used, int) and 0 <= used <= total, f"used_memory(0) is {used!r} of {total}: answer bytes in use"


@pytest.mark.L1
def test_the_device_has_a_name(subject: Subject) -> None:
    """For people."""
    subject.require_real_device("a name")
    name = _told(subject, "device_name")
    assert isinstance(name, str) and name.strip(), f"device_name(0) is {name!r}: answer a name"


@pytest.mark.L1
def test_tensors_live_on_the_device(subject: Subject, dtype: torch.dtype) -> None:
    """They come back with the bits that they went with, and can be computed with there."""
    subject.require_device()
    numbers = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    there = numbers.to(subject.device)
    assert there.device.type == subject.device.type
    assert bool(same_bits(there, numbers).all()), "numbers change on their way to the device and back"
    assert torch.equal((there + there).cpu(), numbers + numbers)


@pytest.mark.L1
def test_the_device_module_synchronizes(subject: Subject) -> None:
    """SGLang waits for the device, and selects it, through this module."""
    subject.require_real_device("a device module")
    module = subject.device_module()
    module.synchronize()
    if subject.device.type != "cpu":
        assert module.device_count() >= 1
        module.set_device(0)
        assert module.current_device() == 0


@pytest.mark.L1
def test_the_distributed_backend_is_registered(subject: Subject) -> None:
    """torch.distributed knows it by the record's name."""
    subject.require_real_device("a distributed backend")
    if subject.platform.in_tree:
        pytest.skip("SGLang's own platform chooses the distributed backend: in_tree=True")
    backend = subject.platform.distributed_backend
    do = "import what registers it in sglang_fl_activate or the SDK, or name another"
    assert torch.distributed.is_backend_available(backend), f"torch.distributed has no backend {backend!r}: {do}"


@pytest.mark.L1
def test_a_process_comes_up_on_the_platform(subject: Subject) -> None:
    """`sglang-fl doctor` in a process of its own finds the platform and every plugin's hooks in order."""
    subject.require_real_device("the command line")
    lines = {line["subject"]: line for line in _doctor(subject.platform.name)}
    for name in ("platform", str(subject.plugin)):
        line = lines.get(name, {"ok": False, "found": "no such line", "remedy": "run `sglang-fl doctor`"})
        assert line["ok"], f"sglang-fl doctor says of {name}: {line['found']}; {line['remedy']}"
    assert lines["platform"]["found"].startswith(subject.platform.name)


def _told(subject: Subject, what: str) -> Any:
    function = getattr(subject.platform, what)
    if function is None and subject.platform.in_tree:
        pytest.skip(f"SGLang's own platform tells it: in_tree=True, and no {what}")
    assert function is not None, f"platform {subject.platform.name!r} has no {what}; give the record one"
    return function(0)


def _doctor(platform: str) -> list[dict[str, Any]]:
    ended = subprocess.run(
        [sys.executable, "-c", _DOCTOR, "doctor", "--json"],
        env=clean_environment({"SGLANG_FL_PLATFORM": platform}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,  # it fails for anything amiss on the machine, such as a release of SGLang
    )
    assert ended.stdout, f"sglang-fl doctor printed nothing:\n{ended.stderr[-4000:]}"
    lines: list[dict[str, Any]] = json.loads(ended.stdout)["lines"]
    return lines
