"""Whether Triton, and FlagGems, can serve here: asked in every process, so neither CUDA nor FlagGems is started."""

from __future__ import annotations

from importlib.util import find_spec

from packaging.version import Version

from sglang_fl.records import Answer

TRITON_BEFORE = "3.7"
"""The first Triton whose compiled kernels take other arguments than those that FlagGems launches them with."""

_NEEDED = {"numpy": "numpy", "yaml": "PyYAML", "sqlalchemy": "sqlalchemy", "packaging": "packaging"}
"""Module -> distribution of what FlagGems imports; it is often installed without its dependencies, for its pins."""


def own_kernels(device_type: str) -> Answer:
    """Can our Triton kernels run on the devices that torch calls ``device_type``?"""
    missing = next((name for name in ("torch", "triton") if find_spec(name) is None), None)
    return _device(device_type) if missing is None else f"{missing} is not installed"


def flag_gems(device_type: str) -> Answer:
    """Can FlagGems' kernels?"""
    if find_spec("flag_gems") is None:
        return "flag-gems is not installed"
    missing = missing_of_flag_gems()
    if missing is not None:
        return f"{missing} is not installed, which flag-gems imports"
    answer = own_kernels(device_type)
    return (broken_by_triton() or True) if answer is True else answer


def missing_of_flag_gems() -> str | None:
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
