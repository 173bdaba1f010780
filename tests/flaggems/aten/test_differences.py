"""What FlagGems does otherwise than it was asked: told by a stand-in of it, which registers with PyTorch on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sglang_fl import AtenOp, Platform, SglangFlError
from sglang_fl.settings import load_settings
from sglang_fl_flaggems import availability
from sglang_fl_flaggems.aten import layer

from .conftest import DECLARED

STAND_IN = """
from types import SimpleNamespace

import torch

def airy(x): return x
def entr(x): return x
def ndtri(x): return x

_FULL_CONFIG = (
    ("special_airy_ai", airy),
    ("special_entr", entr),
    ("special_ndtri", ndtri, lambda: {condition}),
)
aten_lib = torch.library.Library("aten", "IMPL")
config = SimpleNamespace(aten_patch_list={in_cpp})
current_work_registrar = None

class Registrar:
    reg_key = "CPU"

    def __init__(self, rows, lib, **options):
        for key, function, *condition in rows:
            if function.__name__ not in {failing} + {unused} and all(holds() for holds in condition):
                lib.impl(key, function, "CPU")

    def get_unused_ops(self):
        return {unused}

    def get_vendor_name(self):
        return "acme"

registrar = Registrar

def enable(lib=aten_lib, unused=None, registrar=registrar, record=False, once=False, path=None):
    global current_work_registrar
    current_work_registrar = registrar(_FULL_CONFIG, user_exclude_ops=unused, lib=lib)
"""

ACME = Platform(name="acme", device_type="acme", is_available=lambda: True, in_tree=True)
Outcome = Callable[..., dict[str, AtenOp]]


@pytest.fixture
def activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outcome]:
    """Activates the layer with a stand-in of these faults and settings, and gives what it then tells, by name."""
    monkeypatch.setattr(availability, "obstacle", lambda: None)
    monkeypatch.setattr(availability, "own_kernels", lambda device_type: True)
    (tmp_path / "flag_gems").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def activate(more: str = "", *, settings: dict[str, str] | None = None, **faults: object) -> dict[str, AtenOp]:
        told = {"condition": True, "in_cpp": [], "failing": [], "unused": [], **faults}
        source = STAND_IN
        for name, value in told.items():
            source = source.replace(f"{{{name}}}", repr(value))
        (tmp_path / "flag_gems" / "__init__.py").write_text(source + more)
        chosen = load_settings({"USE_FLAGGEMS": "1", **(settings or {})}, DECLARED)
        layer.activate(ACME, chosen)
        return {row.name: row for row in layer.aten_ops(ACME, chosen)}

    yield activate
    stand_in = sys.modules.pop("flag_gems", None)
    if stand_in is not None and hasattr(stand_in, "aten_lib"):
        stand_in.aten_lib._destroy()


WHITELIST = {"SGLANG_FL_FLAGOS_WHITELIST": "special_entr,special_ndtri"}


def test_what_was_asked_is_what_is_there(activated: Outcome) -> None:
    rows = activated(settings={"SGLANG_FL_FLAGOS_BLACKLIST": "special_entr"})
    assert {name for name, row in rows.items() if row.replaced} == {"special_airy_ai", "special_ndtri"}
    x = torch.ones(2)
    assert torch.special.airy_ai(x).data_ptr() == x.data_ptr()
    assert torch.special.entr(x).data_ptr() != x.data_ptr()


def test_an_op_that_could_not_be_registered_is_an_error_that_names_it(activated: Outcome) -> None:
    with pytest.raises(SglangFlError, match=r"found 1 otherwise: special_entr \(FlagGems did not register it\)"):
        activated(failing=["entr"])


def test_what_flaggems_leaves_out_on_this_chip_is_told(activated: Outcome) -> None:
    row = activated(unused=["entr"])["special_entr"]
    assert (row.replaced, row.reason) == (False, "FlagGems leaves it out on acme")


def test_what_flaggems_leaves_out_beside_this_pytorch_is_told(activated: Outcome) -> None:
    row = activated(condition=False)["special_ndtri"]
    assert (row.replaced, row.reason) == (False, "FlagGems registers it only if False")


@pytest.mark.parametrize(
    ("fault", "told"),
    [({"unused": ["entr"]}, "special_entr .FlagGems leaves"), ({"condition": False}, "special_ndtri .FlagGems regis")],
)
def test_what_the_user_named_may_not_be_left_out(activated: Outcome, fault: dict[str, object], told: str) -> None:
    with pytest.raises(SglangFlError, match=told):
        activated(settings=WHITELIST, **fault)


def test_what_is_replaced_all_the_same_is_an_error(activated: Outcome) -> None:
    with pytest.raises(SglangFlError, match=r"special_airy_ai \(replaced all the same\)"):
        activated(settings=WHITELIST, in_cpp=["special_airy_ai"])


def test_a_list_that_grows_after_its_source_is_an_error(activated: Outcome) -> None:
    with pytest.raises(SglangFlError, match="its source does not tell all of its ops: special_erfcx"):
        activated('_FULL_CONFIG += (("special_erfcx", airy),)')


def test_a_flaggems_that_cannot_be_imported_is_an_error_with_what_it_says(activated: Outcome) -> None:
    with pytest.raises(SglangFlError, match=r"use_flaggems, USE_FLAGGEMS.*RuntimeError: No device were detected"):
        activated("raise RuntimeError('No device were detected on your machine !')")


def test_a_machine_on_which_flaggems_cannot_serve_is_refused_with_the_reason(
    activated: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "own_kernels", lambda device_type: f"no Triton for {device_type}")
    with pytest.raises(SglangFlError, match=r"\(use_flaggems, USE_FLAGGEMS\); found no Triton for acme"):
        activated()
    assert "flag_gems" not in sys.modules


@pytest.mark.parametrize(("release", "told"), [("5.0.2+cu", 0), ("5.3.4", 1), ("", 1)])
def test_a_release_that_the_list_of_what_is_wrong_was_not_made_for_is_one_warning(
    activated: Outcome, caplog: pytest.LogCaptureFixture, release: str, told: int
) -> None:
    activated(f"__version__ = '{release}'", settings={"SGLANG_FL_FLAGOS_BLACKLIST": "special_entr"})
    assert sum("was made for flag-gems 5.0.2 and not compared" in text for text in caplog.messages) == told


def test_a_list_of_ops_that_cannot_be_read_is_an_error_where_the_layer_is_on(activated: Outcome) -> None:
    with pytest.raises(SglangFlError, match=r"flag_gems/__init__\.py; found none that can be read"):
        activated("_FULL_CONFIG.append(")


def test_a_list_of_ops_that_cannot_be_read_is_empty_while_the_layer_is_off(activated: Outcome) -> None:
    off = {"USE_FLAGGEMS": "0"}
    assert activated("_FULL_CONFIG.append(", settings=off) == {}
