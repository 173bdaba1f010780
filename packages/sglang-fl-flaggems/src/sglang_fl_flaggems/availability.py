"""Whether Triton, and FlagGems, can serve here: asked in every process, so neither CUDA nor FlagGems is started."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from sglang_fl.records import Answer
from sglang_fl_flaggems.aten.table import FIRST_RELEASE, installed_package, of_release, read_release

TRITON_BEFORE = "3.7"
"""The first Triton whose compiled kernels take other arguments than those that FlagGems launches them with."""

_NEEDED = {"numpy": "numpy", "yaml": "PyYAML", "sqlalchemy": "sqlalchemy", "packaging": "packaging"}
"""Module -> distribution of what FlagGems imports; it is often installed without its dependencies, for its pins."""

_INSTALL = f"pip install flag-gems=={FIRST_RELEASE}"


class Obstacle(NamedTuple):
    """Why FlagGems cannot serve on any device.

    Attributes:
        found: what is in its way.
        do: what mends that.
        lacks: the distribution that it imports and that is not installed, if that is what is in its way.
    """

    found: str
    do: str
    lacks: str | None = None


def own_kernels(device_type: str) -> Answer:
    """Can our Triton kernels run on the devices that torch calls ``device_type``?"""
    missing = next((name for name in ("torch", "triton") if find_spec(name) is None), None)
    return _device(device_type) if missing is None else f"{missing} is not installed"


def flag_gems(device_type: str) -> Answer:
    """Can FlagGems' kernels?"""
    in_the_way = obstacle()
    return own_kernels(device_type) if in_the_way is None else f"{in_the_way.found}: {in_the_way.do}"


def obstacle() -> Obstacle | None:
    """The first thing that keeps FlagGems from serving, whatever the device; None where nothing does."""
    has_triton = find_spec("triton") is not None
    broken = broken_by_triton() if has_triton else None
    if broken is not None:  # first: to install what else may be missing would not help
        return Obstacle(broken, f"take an SGLang that brings triton before {TRITON_BEFORE}")
    package = installed_package()
    if package is None:
        return Obstacle("flag-gems is not installed", _INSTALL)
    outdated = _outdated(package)
    if outdated is not None:
        return Obstacle(outdated, _INSTALL)
    missing = _missing()
    if missing is not None:
        return Obstacle(f"{missing} is not installed, which flag-gems imports", f"pip install {missing}", missing)
    return None if has_triton else Obstacle("triton is not installed", f"pip install 'triton<{TRITON_BEFORE}'")


def _outdated(package: Path) -> str | None:
    """Why the release of FlagGems in ``package`` is not supported, or None where it is, or is unknown."""
    release = read_release(package)
    if release is None or of_release(release) >= Version(FIRST_RELEASE):
        return None
    return f"flag-gems {release} is older than {FIRST_RELEASE}, the first release that is supported"


def _missing() -> str | None:
    """The first distribution that FlagGems needs and that is not installed, or None."""
    return next((name for module, name in _NEEDED.items() if find_spec(module) is None), None)


def broken_by_triton() -> str | None:
    """Why FlagGems' kernels do not work with the installed Triton, or None if they do."""
    import triton  # noqa: PLC0415 - half a second, which whoever only reads settings need not wait

    if Version(triton.__version__) < Version(TRITON_BEFORE):
        return None
    return (
        f"from triton {TRITON_BEFORE} on, FlagGems launches the kernels that it has compiled without their constants:"
        f" its activations and all pointwise kernels get wrong arguments, and here is triton {triton.__version__}"
    )


def _device(device_type: str) -> Answer:
    import torch  # noqa: PLC0415 - seconds, as above
    import triton  # noqa: PLC0415

    try:
        module = torch.get_device_module(device_type)
    except RuntimeError as error:  # its SDK is not imported
        return f"torch knows no device {device_type!r}: {error}"
    if not module.is_available():
        return f"torch {torch.__version__} finds no {device_type} device or driver"
    backends = triton.backends.backends
    if not any(backend.driver.is_active() for backend in backends.values()):
        return f"triton {triton.__version__} compiles for {', '.join(backends)}, and none of them is here"
    return True
