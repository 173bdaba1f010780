"""L0: what the hooks do to a process, in every one of which they are called."""

from __future__ import annotations

from typing import Any

import pytest

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.steps import Steps
from sglang_fl.testing.subject import Subject

SDKS = frozenset(
    ("cupy", "deep_gemm", "flag_gems", "flash_attn", "flashinfer", "pynvml", "sgl_kernel", "sglang", "triton", "vllm")
)
"""Modules that no hook may import, besides the backend's own SDK."""

CUDA_ONLY = frozenset(("cupy", "deep_gemm", "flash_attn", "flashinfer", "pynvml", "sgl_kernel"))
"""Modules that are there, or that work, on CUDA alone."""


@pytest.mark.L0
def test_claims_and_offers_agree(subject: Subject) -> None:
    """Every op that is open is offered, and no other."""
    open_ops = {op for op in CONTRACTS if subject.requirements.why_closed(op) is None}
    missing, unclaimed = sorted(open_ops - subject.impls.keys()), sorted(subject.impls.keys() - open_ops)
    assert not missing, f"{subject.name} claims {missing} and does not offer them: offer them, or close them"
    assert not unclaimed, f"{subject.name} offers {unclaimed}, which requirements.py closes: open them"


@pytest.mark.L0
def test_no_hook_raises(steps: Steps) -> None:
    """On a machine with the device and on one without it."""
    steps.require("error", lambda error: error, "answer with no records for what is not there")


@pytest.mark.L0
def test_hooks_import_no_sdk(subject: Subject, steps: Steps) -> None:
    """They are called before it is known whose device this is, and in processes that never touch one."""
    forbidden = SDKS.union(subject.requirements.sdk)
    do = 'name functions as "module:attribute", and import the SDK inside functions'
    steps.require_of_hooks("imported", lambda modules: sorted(forbidden.intersection(modules)), do)


@pytest.mark.L0
def test_functions_import_nothing_of_another_device(subject: Subject, steps: Steps) -> None:
    """What works on CUDA alone is imported on CUDA alone."""
    subject.require_real_device("importing the functions")
    if subject.platform.device_type == "cuda":
        pytest.skip("the device is CUDA: it may use what is CUDA's alone")
    loaded = steps["its functions are loaded"]
    alien = CUDA_ONLY.intersection(loaded["imported"])
    assert not alien, f"the functions of {subject.name} import {sorted(alien)}: leave CUDA's libraries to CUDA"


@pytest.mark.L0
def test_hooks_leave_the_process_as_it_was(steps: Steps) -> None:
    """No variable set, no thread started: only sglang_fl_activate has effects."""
    do = "do this in sglang_fl_activate"
    steps.require_of_hooks("variables", lambda names: names, do)
    steps.require_of_hooks("threads", lambda count: count > 0 and f"{count} more", do)


@pytest.mark.L0
def test_hooks_answer_alike_every_time(subject: Subject, steps: Steps) -> None:
    """Each process asks for itself, and all must come to the same."""
    for hook in ("register_ops", "register_communicators", "default_settings"):
        first, second = steps.answers(f"sglang_fl_{hook} for {subject.platform.name}")
        assert first == second, f"sglang_fl_{hook} of {subject.name} answers {first}, and then {second}"


@pytest.mark.L0
def test_a_foreign_platform_gets_no_vendor_op(subject: Subject, steps: Steps) -> None:
    """A vendor's ops are for its own platform."""
    offered = steps["sglang_fl_register_ops for elsewhere"]["answer"] or []
    foreign = [op for op, _, kind in offered if kind == "vendor"]
    assert not foreign, (
        f"{subject.name} offers {foreign} on a foreign platform: answer [] unless platform.name is yours"
    )


@pytest.mark.L0
def test_core_takes_its_records(subject: Subject, steps: Steps) -> None:
    """They contradict neither each other nor the ops' contracts."""
    problem = steps["core collects its records"]["answer"]
    assert problem is None, problem


@pytest.mark.L0
def test_availability_is_true_or_a_reason(subject: Subject, steps: Steps) -> None:
    """An answer of no says why, for people; asking raises nothing."""
    wordless = [(what, answer) for what, answer in steps["is_available is asked"]["answer"] if _is_wordless(answer)]
    assert not wordless, f"is_available of {subject.name} answers {wordless}: return True, or a text that says why not"


@pytest.mark.L0
@pytest.mark.parametrize("where", ["", " without the SDK"], ids=["as it is", "without the SDK"])
def test_doctor_lines_say_what_to_do(subject: Subject, steps: Steps, where: str) -> None:
    """A failed diagnosis tells what was wanted and the command that mends it."""
    for name, ok, found, wanted, remedy in steps[f"sglang_fl_diagnose{where}"]["answer"] or []:
        assert ok is not False or (found and wanted and remedy), (
            f"doctor line {name!r} of {subject.name} says failed ({found!r}); add wanted= and remedy="
        )


def _is_wordless(answer: Any) -> bool:
    return answer is False or answer == "" or (isinstance(answer, str) and answer.startswith("raised "))
