"""Core, and core with each extra, installed from wheels into clean environments. None of them needs a torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.distributions.conftest import DISTRIBUTIONS
from tests.distributions.environments import Environment, beside_sglang, clean
from tests.engines import generate, greedy
from tests.models import tiny_llama

Wheels = Mapping[str, Path]

CORE = "sglang-fl-core"
BACKENDS = [name.removeprefix("sglang-fl-") for name in DISTRIBUTIONS if name != CORE]
EXTRAS = {**{name: {name} for name in BACKENDS}, "all": set(BACKENDS)}

TABLE = """\
ops of LlamaForCausalLM on platform cpu
op                layer class      implementation   layers
rms_norm          RMSNorm          reference.torch  5
rotary_embedding  RotaryEmbedding  reference.torch  1
silu_and_mul      SiluAndMul       reference.torch  2
"""


def install(folder: Path, wheels: Wheels, requirement: str) -> Environment:
    environment = clean(folder)
    environment.install("--find-links", wheels[CORE].parent, requirement)
    return environment


@pytest.fixture(scope="module")
def core(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Core alone."""
    return install(tmp_path_factory.mktemp("core") / "env", wheels, CORE)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_its_backends_and_they_are_discovered(wheels: Wheels, tmp_path: Path, extra: str) -> None:
    environment = install(tmp_path / "env", wheels, f"{CORE}[{extra}]")

    found = environment.plugins()
    assert {name: plugin["state"] for name, plugin in found.items()} == dict.fromkeys(
        {*EXTRAS[extra], "reference"}, "ok"
    )
    assert {found[name]["distribution"] for name in EXTRAS[extra]} == {f"sglang-fl-{name}" for name in EXTRAS[extra]}
    packages = environment.packages()
    assert ("flag-gems" in packages) == ("flaggems" in EXTRAS[extra])
    assert "torch" not in packages


def test_core_alone_has_the_reference_backend_only(core: Environment) -> None:
    assert [(plugin["name"], plugin["state"]) for plugin in core.plugins().values()] == [("reference", "ok")]
    assert {name for name in core.packages() if name.startswith(("sglang", "torch", "flag"))} == {CORE}


@pytest.mark.parametrize("arguments", [["config"], ["config", "--sample"], ["config", "--schema"], ["--help"]])
def test_what_needs_no_device_works_without_torch(core: Environment, arguments: list[str]) -> None:
    done = core.cli(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("arguments", [["plugins"], ["ops"], ["explain", "rms_norm"]])
def test_what_asks_for_devices_says_that_torch_is_missing(core: Environment, arguments: list[str]) -> None:
    done = core.cli(*arguments)
    assert done.returncode == 1
    assert "asked  PyTorch\nfound  ModuleNotFoundError: No module named 'torch'" in done.stderr


def test_doctor_without_torch_names_what_to_install(core: Environment) -> None:
    lines = {line["subject"]: line for line in json.loads(core.cli("doctor", "--json").stdout)["lines"]}
    assert lines["Python"]["ok"]
    assert lines["SGLang"]["remedy"] == 'pip install "sglang-fl-core[sglang]"'
    assert not lines["platform"]["ok"]


def test_a_new_backend_can_be_written_without_torch(core: Environment, tmp_path: Path) -> None:
    done = core.cli("new-backend", "mychip", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sglang-fl-mychip" / "pyproject.toml").is_file()


@pytest.mark.server
@pytest.mark.timeout(600)
@pytest.mark.skipif(torch.accelerator.is_available(), reason="core's CPU platform needs a machine without a device")
def test_core_alone_serves(wheels: Wheels, tmp_path: Path) -> None:
    environment = beside_sglang(tmp_path / "env")
    environment.install("--no-deps", wheels[CORE])
    model = tiny_llama(tmp_path / "model")

    answer = generate(environment.python, model, tmp_path, {"SGLANG_FL_STRICT": "1"})

    assert list(environment.plugins()) == ["reference"]
    assert answer.tokens == greedy(model)
    assert TABLE in answer.log
