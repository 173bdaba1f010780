"""L0 catches a backend whose hooks do what hooks must not: each test of it, by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sglang_fl.ops import CONTRACTS
from sglang_fl.plugins import Plugin
from sglang_fl.records import BackendImplKind, OpImpl, Platform
from sglang_fl.testing import suite
from sglang_fl.testing.requirements import Requirements
from sglang_fl.testing.steps import Steps, watched
from sglang_fl.testing.subject import Subject
from tests.third_parties import third_party

SDK = "device_count = 1\n"

GOOD = """
    from importlib.util import find_spec

    from sglang_fl import BackendImplKind, Diagnosis, OpImpl, Platform, hookimpl

    def is_available():
        return True if find_spec("acme_sdk") else "acme_sdk is not installed"

    @hookimpl
    def sglang_fl_register_platforms():
        return [Platform(name="acme", device_type="cpu", is_available=is_available, total_memory=lambda index: 2**30)]

    @hookimpl
    def sglang_fl_register_ops(platform):
        if platform.name != "acme":
            return []
        return [OpImpl(op="silu_and_mul", impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme",
                       fn="acme_ops:silu_and_mul", is_available=is_available)]

    @hookimpl
    def sglang_fl_diagnose():
        if find_spec("acme_sdk"):
            return [Diagnosis(subject="acme_sdk", ok=True, found="1.0")]
        return [Diagnosis(subject="acme_sdk", ok=False, found="none", wanted="any", remedy="pip install acme_sdk")]
"""

BAD = """
    import os
    import random
    import threading
    import time

    from sglang_fl import BackendImplKind, Diagnosis, OpImpl, Platform, hookimpl

    @hookimpl
    def sglang_fl_register_platforms():
        import acme_sdk

        os.environ["ACME_HOME"] = "/opt/acme"
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return [Platform(name="acme", device_type="cpu", is_available=lambda: acme_sdk.device_count == 1,
                         total_memory=lambda index: 2**30)]

    @hookimpl
    def sglang_fl_register_ops(platform):
        def record(op, **fields):
            return OpImpl(op=op, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme",
                          fn="acme_ops:silu_and_mul", **fields)

        count = random.Random().randrange(10**9)
        drawn = OpImpl(op="gelu_and_mul", impl_id=f"vendor.acme{count}", kind=BackendImplKind.VENDOR, vendor="acme",
                       fn="acme_ops:silu_and_mul")
        return [record("silu_and_mul", mutates=("x",)), record("rms_norm", is_available=lambda: False), drawn]

    @hookimpl
    def sglang_fl_diagnose():
        import acme_sdk

        return [Diagnosis(subject="acme_sdk", ok=False, found=str(acme_sdk.device_count))]
"""

OPS = "import cupy\n\ndef silu_and_mul(obj, x):\n    return x\n"


def subject() -> Subject:
    claims = Requirements(plugin="acme", platform="acme", implementation="vendor.acme", sdk=("acme_sdk",))
    platform = Platform(name="acme", device_type="cpu", is_available=lambda: True, total_memory=lambda index: 2**30)
    kind = BackendImplKind.VENDOR
    impls = {
        op: OpImpl(op=op, impl_id="vendor.acme", kind=kind, vendor="acme", fn="acme_ops:silu_and_mul")
        for op in ("silu_and_mul", "rms_norm")
    }
    return Subject(claims, Plugin("acme", "acme-chip", "1.0"), platform, impls)


def steps_of(source: str, ops: str, folder: Path) -> Steps:
    """What L0 sees of a backend whose hooks are ``source``."""
    site = third_party(folder, "acme-chip", source, entry_points={"acme": "acme_chip"})
    for name, content in {"acme_sdk": SDK, "acme_ops": ops, "cupy": ""}.items():
        (site / f"{name}.py").write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        return watched(subject())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return steps_of(GOOD, OPS.removeprefix("import cupy\n"), tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return steps_of(BAD, OPS, tmp_path_factory.mktemp("bad"))


CAUGHT: dict[str, tuple[Any, ...]] = {
    "test_no_hook_raises": (),
    "test_hooks_import_no_sdk": (subject(),),
    "test_functions_import_nothing_of_another_device": (subject(),),
    "test_hooks_leave_the_process_as_it_was": (),
    "test_hooks_answer_alike_every_time": (subject(),),
    "test_a_foreign_platform_gets_no_vendor_op": (subject(),),
    "test_core_takes_its_records": (subject(),),
    "test_availability_is_true_or_a_reason": (subject(),),
}
"""Test -> what it takes before the steps."""


@pytest.mark.parametrize("name", CAUGHT)
def test_a_backend_without_manners_is_caught_by(name: str, bad: Steps) -> None:
    with pytest.raises(AssertionError):
        getattr(suite, name)(*CAUGHT[name], bad)


@pytest.mark.parametrize("name", CAUGHT)
def test_a_backend_with_manners_passes(name: str, good: Steps) -> None:
    getattr(suite, name)(*CAUGHT[name], good)


def test_a_doctor_line_that_helps_nobody_is_caught(good: Steps, bad: Steps) -> None:
    suite.test_doctor_lines_say_what_to_do(subject(), good, " without the SDK")
    with pytest.raises(AssertionError, match="add wanted= and remedy="):
        suite.test_doctor_lines_say_what_to_do(subject(), bad, "")


def test_without_the_sdk_is_as_where_it_is_not_installed(good: Steps, bad: Steps) -> None:
    ((_, ok, _, _, remedy),) = good["sglang_fl_diagnose without the SDK"]["answer"]
    assert (ok, remedy) == (False, "pip install acme_sdk")
    assert bad["sglang_fl_diagnose without the SDK"]["error"].startswith("ModuleNotFoundError")


def test_an_op_that_is_claimed_and_not_offered_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"claims .*'layer_norm'.* and does not offer them"):
        suite.test_claims_and_offers_agree(subject())


def test_an_op_that_is_offered_and_not_claimed_is_caught() -> None:
    claims = subject()
    closed = dict.fromkeys(CONTRACTS, "none yet")
    silent = Requirements(plugin="acme", platform="acme", implementation="vendor.acme", closed=closed)
    with pytest.raises(AssertionError, match=r"offers \['rms_norm', 'silu_and_mul'\], which requirements.py closes"):
        suite.test_claims_and_offers_agree(Subject(silent, claims.plugin, claims.platform, claims.impls))
