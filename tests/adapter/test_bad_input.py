"""Bad input ends a real SGLang start with one message, in the foreground, although SGLang swallows exceptions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.samples import run_python
from tests.third_parties import third_party

pytestmark = pytest.mark.server

START = "from sglang.launch_server import run_server; raise SystemExit(0)"
"""As much of a start as bad input may last for: SGLang asks for its platform while it is being imported."""

PARTS = ("sglang-fl: ", ": asked for ", "; found ", ". To do: ")


def _one_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed with one message of ours, which has all four parts and these words."""
    messages = [line for line in done.stderr.splitlines() if line.startswith("sglang-fl: ")]
    assert done.returncode == 1, done.stderr[-2000:]
    assert len(messages) == 1, done.stderr[-2000:]
    for word in (*PARTS, *words):
        assert word in messages[0]
    assert "Traceback" not in done.stderr


BAD_VARIABLES = {
    "unknown variable": ({"SGLANG_FL_PREFRE": "vendor"}, ["SGLANG_FL_PREFRE", "SGLANG_FL_PREFER"]),
    "unknown kind": ({"SGLANG_FL_PREFER": "vendr"}, ["SGLANG_FL_PREFER", "vendr", "vendor"]),
    "unknown op": ({"SGLANG_FL_PER_OP": "rms_nrom=reference"}, ["rms_nrom", "rms_norm", "SGLANG_FL_PER_OP"]),
    "unknown token": ({"SGLANG_FL_PER_OP": "rms_norm=refrence"}, ["refrence", "reference"]),
    "unknown implementation": ({"SGLANG_FL_PER_OP": "rms_norm=impl:reference.troch"}, ["reference.torch"]),
    "unknown vendor": ({"SGLANG_FL_DENY_VENDORS": "acme"}, ["acme", "SGLANG_FL_DENY_VENDORS"]),
    "unknown platform": ({"SGLANG_FL_PLATFORM": "cqu"}, ["cqu", "cpu", "SGLANG_FL_PLATFORM"]),
    "unknown layer": ({"SGLANG_FL_OOT_BLACKLIST": "RMSNrom"}, ["RMSNrom", "RMSNorm"]),
    "unknown plugin": ({"SGLANG_FL_DISABLED_PLUGINS": "acme"}, ["acme", "SGLANG_FL_DISABLED_PLUGINS"]),
    "unknown communicator": ({"SGLANG_FL_DIST_BACKEND": "flagcx"}, ["flagcx", "SGLANG_FL_DIST_BACKEND"]),
    "both lists": (
        {"SGLANG_FL_OOT_BLACKLIST": "RMSNorm", "SGLANG_FL_OOT_WHITELIST": "SiluAndMul"},
        ["SGLANG_FL_OOT_BLACKLIST", "SGLANG_FL_OOT_WHITELIST"],
    ),
    "a missing backend's setting": (
        {"USE_FLAGGEMS": "1", "SGLANG_FL_DISABLED_PLUGINS": "flaggems"},
        ["USE_FLAGGEMS", "sglang-fl-flaggems"],
    ),
    "missing file": ({"SGLANG_FL_CONFIG": "/nowhere/fl.yaml"}, ["/nowhere/fl.yaml"]),
}


@pytest.mark.parametrize("case", BAD_VARIABLES)
def test_a_bad_variable_ends_the_start_and_is_named(case: str) -> None:
    variables, words = BAD_VARIABLES[case]
    _one_message(run_python(START, **variables), *words)


BAD_YAML = {
    "unknown key": ("prefre: vendor", ["prefre", "prefer"]),
    "unknown op": ("op_backends: {rms_nrom: [reference]}", ["rms_nrom", "rms_norm"]),
    "no mapping": ("- prefer", ["mapping"]),
    "syntax": ("prefer: [", ["line"]),
    "both lists": ("oot_blacklist: [RMSNorm]\noot_whitelist: [SiluAndMul]", ["oot_blacklist", "oot_whitelist"]),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_bad_yaml_ends_the_start_and_is_named(tmp_path: Path, case: str) -> None:
    text, words = BAD_YAML[case]
    file = tmp_path / "fl.yaml"
    file.write_text(text)
    _one_message(run_python(START, SGLANG_FL_CONFIG=str(file)), str(file), *words)


OFFER = """
    from sglang_fl import BackendImplKind, OpImpl, hookimpl

    @hookimpl
    def sglang_fl_register_ops(platform):
        return [OpImpl(op="silu_and_mul", impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme", fn="a:b")]
"""


def test_two_distributions_that_offer_the_same_end_the_start(tmp_path: Path) -> None:
    third_party(tmp_path, "acme-chip", OFFER)
    site = third_party(tmp_path, "acme-fork", OFFER)
    _one_message(run_python(START, site=site), "acme-chip", "acme-fork", "vendor.acme")


def test_a_broken_third_party_ends_a_strict_start(tmp_path: Path) -> None:
    site = third_party(tmp_path, "acme-chip", "raise ImportError('libacme.so is missing')")
    _one_message(run_python(START, site=site, SGLANG_FL_STRICT="1"), "acme-chip", "libacme.so is missing")


STARTS = {
    "sglang serve": [str(Path(sys.executable).with_name("sglang")), "serve", "--model-path", "/nowhere"],
    "launch_server": [sys.executable, "-m", "sglang.launch_server", "--model-path", "/nowhere"],
    "Engine": [sys.executable, "-c", "import sglang; sglang.Engine(model_path='/nowhere')"],
}


@pytest.mark.parametrize("start", STARTS)
def test_every_way_to_start_ends_with_the_message(start: str) -> None:
    done = subprocess.run(
        STARTS[start],
        env={**os.environ, "SGLANG_FL_PREFER": "vendr"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    _one_message(done, "vendr")


def test_disabled_the_plugin_registers_nothing() -> None:
    program = """
import sglang
from sglang.srt.platforms import current_platform
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry
load_plugins()
import sys
hooked = "sglang-fl-core" in str(HookRegistry._hooks)
print("sglang_fl.session" in sys.modules, hooked, current_platform.is_out_of_tree())
"""
    done = run_python(program, SGLANG_FL_ENABLED="0")
    assert done.stdout.split("\n")[-2] == "False False False", done.stderr[-2000:]
