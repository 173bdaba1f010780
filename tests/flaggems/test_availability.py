from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import triton

from sglang_fl_flaggems import availability

Installs = Callable[..., None]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that torch and Triton know: ``acme``."""
    modules = {
        "acme": SimpleNamespace(is_available=lambda: True),
        "broken": SimpleNamespace(is_available=lambda: False),
    }
    known = torch.get_device_module
    monkeypatch.setattr(torch, "get_device_module", lambda name: modules.get(name) or known(name))
    backends = {"acme": SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))}
    monkeypatch.setattr(triton.backends, "backends", backends)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    """Makes these modules the ones that there are; whoever imports them fails."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*names: str) -> None:
        for name in names:
            (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')")

    yield install


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = availability.find_spec
    monkeypatch.setattr(availability, "find_spec", lambda name: None if name in names else found(name))


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_our_kernels_need_torch_and_triton(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    without(monkeypatch, name)
    assert availability.own_kernels("cuda") == f"{name} is not installed"


def test_our_kernels_need_a_device_that_torch_knows() -> None:
    answer = availability.own_kernels("acme")
    assert isinstance(answer, str)
    assert answer.startswith("torch knows no device 'acme'")


def test_our_kernels_need_a_device_that_is_there(accelerator: None) -> None:
    assert availability.own_kernels("broken") == f"torch {torch.__version__} finds no broken device or driver"
    assert availability.own_kernels("acme") is True


def test_our_kernels_need_a_triton_for_the_device(accelerator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = {name: SimpleNamespace(driver=SimpleNamespace(is_active=lambda: False)) for name in ("nvidia", "amd")}
    monkeypatch.setattr(triton.backends, "backends", backends)
    answer = availability.own_kernels("acme")
    assert answer == f"triton {triton.__version__} compiles for nvidia, amd, and none of them is here"


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("flag_gems", "flag-gems is not installed"),
        ("yaml", "PyYAML is not installed, which flag-gems imports"),
        ("sqlalchemy", "sqlalchemy is not installed, which flag-gems imports"),
    ],
)
def test_flaggems_needs_itself_and_what_it_imports(
    monkeypatch: pytest.MonkeyPatch, installed: Installs, missing: str, reason: str
) -> None:
    installed("flag_gems", "sqlalchemy")
    without(monkeypatch, missing)
    assert availability.flag_gems("cuda") == reason


@pytest.mark.parametrize(
    ("version", "works"),
    [("3.2.0", True), ("3.6.0", True), ("3.6.0+metax3", True), ("3.7.0", False), ("3.8.0", False), ("4.0.0", False)],
)
def test_flaggems_needs_a_triton_that_launches_as_it_does(
    monkeypatch: pytest.MonkeyPatch, accelerator: None, installed: Installs, version: str, works: bool
) -> None:
    installed("flag_gems", "sqlalchemy")
    monkeypatch.setattr(triton, "__version__", version)
    answer = availability.flag_gems("acme")
    assert (answer is True) == works
    if not works:
        assert "pointwise" in str(answer)
        assert str(answer).endswith(f"here is triton {version}")
