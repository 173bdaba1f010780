"""pytest itself, in a vendor's own repository: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sglang_fl.ops import CONTRACTS
from tests.third_parties import third_party

ACME = """
    import torch

    from sglang_fl import BackendImplKind, OpImpl, hookimpl

    def silu_and_mul(obj, x):
        up, gate = x.float().chunk(2, dim=-1)
        return (torch.nn.functional.silu(gate) * up).to(x.dtype)

    def gelu_and_mul(obj, x):
        gate, up = x.float().chunk(2, dim=-1)
        return (torch.nn.functional.gelu(gate) * up).to(x.dtype)

    def accepts(obj, x):
        return True if x.shape[-1] % 32 == 0 else "the width is no multiple of 32"

    @hookimpl
    def sglang_fl_register_ops(platform):
        if platform.name != "cpu":
            return []
        def record(fn, **fields):
            return OpImpl(op=fn.__name__, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme", fn=fn,
                          **fields)

        return [record(silu_and_mul), record(gelu_and_mul, accepts=accepts)]
"""

CLAIMS = f"""
    from sglang_fl.testing import Requirements

    requirements = Requirements(
        plugin="acme_chip",
        platform="cpu",
        implementation="vendor.acme",
        closed={{op: "no kernel yet" for op in {sorted(CONTRACTS)} if op not in ("silu_and_mul", "gelu_and_mul")}},
    )
"""

SUITE = "from sglang_fl.testing.suite import *  # noqa: F403\n"

VALUES = "test_values_are_those_of_float64"


@dataclass(frozen=True)
class Run:
    """How a run of pytest ended, all that it printed, and the folder that it ran in."""

    status: int
    output: str
    folder: Path

    def outcomes(self) -> dict[str, str]:
        """Test -> how it ended."""
        return dict(re.findall(r"test_acme.py::(\S+) (\w+)", self.output))


def run_pytest(folder: Path, *arguments: str) -> Run:
    """In ``folder``, with what its ``site`` holds installed, and no settings of this repository's."""
    environ = {**os.environ, "PYTHONPATH": str(folder / "site"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    options = ["-v", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(ended.returncode, ended.stdout + ended.stderr, folder)


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs pytest in Acme's repository, with more files."""

    def run(*arguments: str, **files: str) -> Run:
        folder = tmp_path_factory.mktemp("acme")
        third_party(folder, "acme-chip", ACME)
        written = {"requirements.py": CLAIMS, "test_acme.py": SUITE, **files}
        for name, content in written.items():
            (folder / name).write_text(textwrap.dedent(content))
        return run_pytest(folder, *arguments)

    return run


KNOWN = """
    test_values_are_those_of_float64[silu_and_mul-float16]: gate and up are swapped
    test_values_are_those_of_float64[gelu_and_mul-float16]: it was wrong before 1.0
"""


@pytest.fixture(scope="module")
def run(acme: Callable[..., Run]) -> Run:
    """Some tests of L0 and L3, with known failures, and everything that can be written."""
    chosen = "values_are_those or odd_widths or claims or accepts_takes"
    options = ["--sglang-fl-examples", "4", "--sglang-fl-matrix", "matrix.md", "--junitxml", "junit.xml"]
    return acme("-k", chosen, *options, **{"known_failures.yaml": KNOWN})


def test_the_header_names_subject_platform_device_and_versions(run: Run) -> None:
    (line,) = [line for line in run.output.splitlines() if line.startswith("conformance: ")]
    assert line.startswith("conformance: vendor.acme of acme-chip 1.0 on cpu (")
    assert "sglang-fl-core " in line
    assert "torch " in line


def test_a_fault_fails_and_tells_who_was_asked_what_and_what_to_do(run: Run) -> None:
    assert run.status == 1
    assert run.outcomes()[f"{VALUES}[silu_and_mul-float32]"] == "FAILED"
    told = run.output
    assert "vendor.acme of silu_and_mul (acme-chip), on cpu" in told
    assert re.search(r"asked: silu_and_mul\(x=float32\[.*\]\)", told)
    assert re.search(r"found: in the result, element \[.*\] is .*, exact is ", told)
    assert "to do: mend the implementation" in told


def test_exactly_the_implementation_named_is_called(run: Run) -> None:
    # With a fallback the reference would have served silu_and_mul rightly.
    assert run.outcomes()["test_odd_widths[silu_and_mul]"] == "FAILED"
    assert run.outcomes()[f"{VALUES}[gelu_and_mul-float32]"] == "PASSED"


def test_what_is_closed_is_skipped_with_its_reason(run: Run) -> None:
    assert run.outcomes()[f"{VALUES}[rms_norm-float32]"] == "SKIPPED"
    assert "rms_norm is closed: no kernel yet" in run.output


def test_claims_that_hold_pass(run: Run) -> None:
    assert run.outcomes()["test_claims_and_offers_agree"] == "PASSED"


def test_a_known_failure_is_expected(run: Run) -> None:
    assert run.outcomes()[f"{VALUES}[silu_and_mul-float16]"] == "XFAIL"


def test_a_known_failure_that_passes_fails(run: Run) -> None:
    assert run.outcomes()[f"{VALUES}[gelu_and_mul-float16]"] == "FAILED"
    assert "if it passes, it is fixed, and must go from there" in run.output


def test_refusals_are_counted_and_shown(run: Run) -> None:
    assert re.search(r"refused [1-9]\d* of \d+ calls of gelu_and_mul: the width is no multiple of 32", run.output)
    assert run.outcomes()["test_odd_widths[gelu_and_mul]"] == "SKIPPED"
    assert "accepts refuses all 4 calls of this kind: the width is no multiple of 32" in run.output


def test_the_summary_tells_each_level(run: Run) -> None:
    assert re.search(r"^=+ conformance: vendor.acme of acme-chip 1.0 on cpu \(.*\) =+$", run.output, re.MULTILINE)
    assert re.search(r"^L0 passed   imports and hygiene in every process: 1 passed$", run.output, re.MULTILINE)
    assert re.search(
        r"^L3 failed   ops: \d+ failed, \d+ passed, \d+ skipped, 1 known failure$", run.output, re.MULTILINE
    )


def test_the_matrix_has_a_row_for_the_subject(run: Run) -> None:
    head, _, row = (run.folder / "matrix.md").read_text().splitlines()
    cells = dict(zip(head.split("|"), row.split("|"), strict=True))
    told = {name.strip(): cell.strip() for name, cell in cells.items()}
    assert told["subject"] == "vendor.acme of acme-chip 1.0"
    assert told["device"].startswith("cpu: ")
    assert told["L0"] == "✓ 1"
    assert re.fullmatch(r"✗ \d+ of \d+ \(1 known\)", told["L3"])
    assert told["L6"] == "-"
    assert re.fullmatch(r"gelu_and_mul \d+/\d+", told["refused calls"])


def test_junit_has_what_each_test_tested(run: Run) -> None:
    cases = {case.get("name"): case for case in ET.parse(run.folder / "junit.xml").iter("testcase")}
    told = json.loads(cases[f"{VALUES}[gelu_and_mul-float32]"].find("properties/property").get("value"))
    assert (told["subject"], told["level"], told["op"]) == ("vendor.acme of acme-chip 1.0", "L3", "gelu_and_mul")
    assert told["calls"] == 4
    assert cases[f"{VALUES}[silu_and_mul-float32]"].find("failure") is not None


def test_a_known_failure_that_is_no_test_is_refused_with_the_nearest(acme: Callable[..., Run]) -> None:
    known = "test_values_are_those_of_float64[silu_and_mul-float61]: swapped\n"
    ended = acme("-m", "L3", **{"known_failures.yaml": known})
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert f"did you mean '{VALUES}[silu_and_mul-float16]'?" in ended.output


def test_a_backend_that_is_not_installed_is_told_of(acme: Callable[..., Run]) -> None:
    ended = acme("-m", "L3", **{"requirements.py": CLAIMS.replace("acme_chip", "acme_chop")})
    assert ended.status != 0
    assert "asked for the plugin 'acme_chop'" in ended.output
    assert "did you mean 'acme_chip'?" in ended.output


def test_several_subjects_are_tested_in_one_run(tmp_path: Path) -> None:
    third_party(tmp_path, "acme-chip", ACME)
    for name, claims in {"one": CLAIMS, "two": CLAIMS.replace("vendor.acme", "vendor.acmf")}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "requirements.py").write_text(textwrap.dedent(claims))
        (folder / "test_acme.py").write_text(SUITE)
    (tmp_path / "site" / "acme_chip.py").write_text(
        textwrap.dedent(ACME).replace(
            "return [record(silu_and_mul), record(gelu_and_mul, accepts=accepts)]",
            "return [OpImpl(op='gelu_and_mul', impl_id=f'vendor.acm{x}', kind=BackendImplKind.VENDOR, vendor='acme',"
            " fn=gelu_and_mul) for x in 'ef']",
        )
    )
    run = run_pytest(tmp_path, "-k", "single_row and gelu_and_mul", "--sglang-fl-matrix", "matrix.md", "-n", "2")
    assert run.status == 0, run.output
    rows = (tmp_path / "matrix.md").read_text().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [f"vendor.acm{x} of acme-chip 1.0" for x in "ef"]


def test_without_the_suite_pytest_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    assert not {'torch', 'hypothesis', 'sglang_fl.plugins'} & set(sys.modules)\n"
    )
    run = run_pytest(tmp_path, "-p", "no:hypothesispytest", "-p", "no:xdist")
    assert run.status == 0, run.output
    assert "conformance" not in run.output
