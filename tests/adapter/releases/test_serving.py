"""Each release starts its engine, on a platform and with ops of plugins, and answers as transformers does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.adapter.releases.engine import SEED
from tests.adapter.releases.wheels import search_path
from tests.engines import ask, environ_of, greedy
from tests.models import tiny_llama
from tests.third_parties import third_party

PLATFORM = """
    from dataclasses import replace

    from sglang_fl import hookimpl
    from sglang_fl.reference import hooks

    @hookimpl
    def sglang_fl_register_platforms():
        cpu = next(platform for platform in hooks.sglang_fl_register_platforms() if platform.name == "cpu")
        return [replace(cpu, name="acme", server_args={"schedule_policy": "lpm", "random_seed": 3})]
"""

TABLE = """\
ops of LlamaForCausalLM on platform acme
op                layer class      implementation   layers
rms_norm          RMSNorm          SGLang           1       SGLang pins its forward
rms_norm          RMSNorm          reference.torch  4
rotary_embedding  RotaryEmbedding  reference.torch  1
silu_and_mul      SiluAndMul       reference.torch  2
"""


@dataclass(frozen=True)
class Served:
    """What an engine answered, the settings that it ran with, and all that its processes printed."""

    version: str
    tokens: list[list[int]]
    schedule_policy: str
    random_seed: int
    log: str


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def wanted(model: Path) -> list[list[int]]:
    """The greedy answers of transformers, in fp32."""
    return greedy(model)


@pytest.mark.server
@pytest.mark.timeout(900)
def test_a_release_serves_with_our_ops_on_a_plugins_platform(
    release: str, model: Path, wanted: list[list[int]], tmp_path: Path
) -> None:
    served = serve(release, model, tmp_path)

    assert served.version == release
    assert served.tokens == wanted
    assert TABLE in served.log
    assert served.schedule_policy == "lpm", "the platform's default"
    assert served.random_seed == SEED, "the user's value goes before the platform's default"


def serve(release: str, model: Path, folder: Path) -> Served:
    """Starts the release's engine as its own process, asks it ``PROMPTS``, and ends it with all its workers.

    Strict, it does not start if one of our hooks did not take.
    """
    environ = environment(release, third_party(folder, "acme-chip", PLATFORM))
    told, log = ask(sys.executable, model, folder, environ)
    return Served(**told, log=log)


def environment(release: str, plugins: Path) -> dict[str, str]:
    """For the release, with ``plugins``, and with our own model in the place of all of SGLang's."""
    path = [*search_path(release), plugins, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **environ_of(release, keeping=""),
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "SGLANG_FL_PLATFORM": "acme",
        "SGLANG_FL_STRICT": "1",
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "tests.adapter.releases.external",
    }
