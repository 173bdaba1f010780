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
    """Makes these packages the ones that there are; whoever imports them fails."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*names: str, source: str = "") -> None:
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(f"{source}\nraise AssertionError('imported')")

    yield install


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = availability.find_spec
    monkeypatch.setattr(availability, "find_spec", lambda name: None if name in names else found(name))
    if "flag_gems" in names:
        monkeypatch.setattr(availability, "installed_package", lambda: None)


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
        ("flag_gems", "flag-gems is not installed: pip install flag-gems==5.0.2"),
        ("yaml", "PyYAML is not installed, which flag-gems imports: pip install PyYAML"),
        ("sqlalchemy", "sqlalchemy is not installed, which flag-gems imports: pip install sqlalchemy"),
        ("triton", "triton is not installed: pip install 'triton<3.7'"),
    ],
)
def test_flaggems_needs_itself_and_what_it_imports(
    monkeypatch: pytest.MonkeyPatch, installed: Installs, missing: str, reason: str
) -> None:
    installed("flag_gems", "sqlalchemy")
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    without(monkeypatch, missing)
    assert availability.flag_gems("cuda") == reason


@pytest.mark.parametrize("missing", ["flag_gems", "yaml", "sqlalchemy"])
def test_nothing_is_to_be_installed_where_triton_breaks_flaggems_anyway(
    monkeypatch: pytest.MonkeyPatch, installed: Installs, missing: str
) -> None:
    installed("flag_gems", "sqlalchemy")
    monkeypatch.setattr(triton, "__version__", "3.8.0")
    without(monkeypatch, missing)
    assert "pip install" not in str(availability.flag_gems("cuda"))
    assert "here is triton 3.8.0" in str(availability.flag_gems("cuda"))


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
        assert str(answer).endswith(
            f"here is triton {version}: take an SGLang that brings triton before {availability.TRITON_BEFORE}"
        )


@pytest.mark.parametrize("release", ["4.2.0", "5.0.1", "5.0.1+cu130"])
def test_a_release_of_flaggems_before_the_first_supported_is_refused_with_the_one_to_install(
    monkeypatch: pytest.MonkeyPatch, accelerator: None, installed: Installs, release: str
) -> None:
    installed("flag_gems", source=f"__version__ = '{release}'")
    installed("sqlalchemy")
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    assert availability.flag_gems("acme") == (
        f"flag-gems {release} is older than 5.0.2, the first release that is supported: pip install flag-gems==5.0.2"
    )


@pytest.mark.parametrize("source", ["", *(f"__version__ = '{one}'" for one in ("5.0.2+cu", "5.0.2.dev1", "5.3.4"))])
def test_a_build_of_the_first_supported_release_a_later_one_and_an_unknown_one_are_taken(
    monkeypatch: pytest.MonkeyPatch, accelerator: None, installed: Installs, source: str
) -> None:
    installed("flag_gems", source=source)
    installed("sqlalchemy")
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    assert availability.flag_gems("acme") is True
