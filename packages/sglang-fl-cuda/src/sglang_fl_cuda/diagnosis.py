"""Lines for ``sglang-fl doctor``. What is missing is a failure where the machine has a device, and else a note."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.version import Version

from sglang_fl.records import Diagnosis
from sglang_fl_cuda import kernels
from sglang_fl_cuda.availability import OLDEST_CAPABILITY, device_is_available, dotted, runs
from sglang_fl_cuda.machine import Machine, machine

_DRIVER = "NVIDIA driver"
_NEWER_DRIVER = "install a newer driver, or a torch that is built for an older CUDA"
_MUTE_DRIVER = "see what nvidia-smi says; a driver that was updated wants a reboot, a container to be started anew"


def diagnose() -> Iterator[Diagnosis]:
    """The driver, torch's CUDA, the devices and sgl_kernel. Raises nothing."""
    looks: dict[str, Callable[[], Iterator[Diagnosis]]] = {
        _DRIVER: _driver,
        "CUDA of torch": _toolkit,
        "CUDA devices": _devices,
        "sgl_kernel": _kernels,
    }
    for subject, look in looks.items():
        try:
            yield from look()
        except Exception as error:  # a broken driver or library: that is what people ask the doctor about
            found = kernels.cause(error)
            yield Diagnosis(
                subject=subject, ok=False, found=found, wanted="an answer", remedy="see what nvidia-smi says"
            )


def _driver() -> Iterator[Diagnosis]:
    here, toolkit = machine(), _built_for()
    if here is None:
        yield Diagnosis(subject=_DRIVER, ok=None, found="none that NVIDIA's management library finds")
    elif isinstance(here, str):
        yield _mute(here)
    elif toolkit is None or runs(here.cuda, toolkit):
        yield Diagnosis(subject=_DRIVER, ok=True, found=f"{here.driver}, CUDA up to {dotted(here.cuda)}")
        yield from _lost(here)
    else:
        yield Diagnosis(
            subject=_DRIVER,
            ok=False,
            found=f"{here.driver}, CUDA up to {dotted(here.cuda)}",
            wanted=f"a driver for CUDA {toolkit}, which torch is built for",
            remedy=_NEWER_DRIVER,
        )


def _mute(reason: str) -> Diagnosis:
    """Where torch finds its devices all the same, it is only worth knowing that the library tells nothing of them."""
    if device_is_available() is True:
        return Diagnosis(subject=_DRIVER, ok=None, found=f"NVIDIA's management library says: {reason}")
    return Diagnosis(subject=_DRIVER, ok=False, found=reason, wanted="a driver that answers", remedy=_MUTE_DRIVER)


def _lost(here: Machine) -> Iterator[Diagnosis]:
    for index, reason in here.unread.items() if here.devices else ():
        yield Diagnosis(
            subject=f"NVIDIA device {index}",
            ok=False,
            found=reason,
            wanted="a device that answers",
            remedy=_MUTE_DRIVER,
        )


def _toolkit() -> Iterator[Diagnosis]:
    answer, here, toolkit = device_is_available(), machine(), _built_for()
    if answer is True:
        yield Diagnosis(subject="CUDA of torch", ok=True, found=str(toolkit))
    elif not isinstance(here, Machine) or not (here.devices or here.unread):
        yield Diagnosis(subject="CUDA of torch", ok=None, found=str(answer))
    else:
        wanted = f"a torch that finds the {here.devices[0].name}" if here.devices else "a device that answers"
        yield Diagnosis(
            subject="CUDA of torch", ok=False, found=str(answer), wanted=wanted, remedy=_remedy(here, toolkit)
        )


def _remedy(here: Machine, toolkit: str | None) -> str:
    """What makes torch find the device that the machine has."""
    if toolkit is None:
        return _reinstall_torch()
    if not runs(here.cuda, toolkit):
        return _NEWER_DRIVER
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    return "unset CUDA_VISIBLE_DEVICES" if hidden else f"mend what CUDA says: {_what_cuda_says()}"


def _what_cuda_says() -> str:
    """Why it does not start, which ``torch.cuda.is_available`` keeps to itself."""
    import torch  # noqa: PLC0415 - as below

    try:
        torch.cuda.init()
    except Exception as error:
        return kernels.cause(error)
    return "nothing, once it is started; see what nvidia-smi says"


def _devices() -> Iterator[Diagnosis]:
    if device_is_available() is not True:
        return
    import torch  # noqa: PLC0415 - seconds, which other commands must not wait

    # The sgl_kernel of a chip that only speaks CUDA is its vendor's own build.
    least = OLDEST_CAPABILITY if isinstance(machine(), Machine) else (0, 0)
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        capability = (device.major, device.minor)
        fits = capability >= least
        yield Diagnosis(
            subject=f"CUDA device {index}",
            ok=fits,
            found=f"{device.name}, compute capability {dotted(capability)}, {device.total_memory / 2**30:.1f} GiB",
            wanted="" if fits else f"compute capability {dotted(OLDEST_CAPABILITY)}, which sgl_kernel is built for",
            remedy="" if fits else "serve with another backend's ops: SGLANG_FL_PREFER=flagos",
        )


def _kernels() -> Iterator[Diagnosis]:
    if device_is_available() is not True:
        yield Diagnosis(subject="sgl_kernel", ok=None, found=f"{_version('sglang-kernel')}, not tried: no device")
        return
    reason = "not installed" if find_spec("sgl_kernel") is None else _why_not_loaded()
    if reason is None:
        yield Diagnosis(subject="sgl_kernel", ok=True, found=f"{_version('sglang-kernel')}, loads")
        return
    wanted = _wanted_kernels()
    yield Diagnosis(
        subject="sgl_kernel",
        ok=False,
        found=reason,
        wanted=f"{wanted}, which loads",
        remedy=f'pip install --force-reinstall "{wanted}"',
    )


def _why_not_loaded() -> str | None:
    try:
        kernels.norms()
    except ImportError as error:
        return str(error)
    return None


def _wanted_kernels() -> str:
    """The requirement of the installed SGLang, or the bare name."""
    try:
        requirements = importlib.metadata.requires("sglang") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    ones = (one for one in map(Requirement, requirements) if one.name == "sglang-kernel")
    return next((f"{one.name}{one.specifier}" for one in ones), "sglang-kernel")


def _built_for() -> str | None:
    """The CUDA that torch is built for, or None."""
    if find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415 - as above

    return None if torch.version.cuda is None else str(torch.version.cuda)


def _reinstall_torch() -> str:
    """The build of this release in the package index is for CUDA; pip takes any build of it for that one."""
    version = _version("torch")
    release = Version(version).public if version != "not installed" else ""
    return f'pip install --force-reinstall "torch=={release}"' if release else "pip install torch"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
