"""Every release has the names that the adapter stands on. Read from source: see ``sources``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

import sglang_fl
from sglang_fl.adapter import seams
from tests.adapter.releases.sources import Sources, parameters
from tests.adapter.releases.wheels import RELEASES

PACKAGE = Path(sglang_fl.__file__).parent
LATER = {
    "sglang.srt.platforms.interface:PlatformCapabilities": "0.5.22",
    "sglang.srt.layers.layernorm:_fp8_static_input_scale": "0.5.18",
    "sglang.srt.layers.quantization.fp8_activation:DenseSiluAndMulQuant": "0.5.23",
}
"""What the adapter uses only where there is one, and the release that it starts at."""


def test_the_releases_are_those_that_the_adapter_supports() -> None:
    assert (Version(RELEASES[0]), Version(RELEASES[-1])) == (seams.OLDEST, seams.NEWEST)


@pytest.mark.parametrize("seam", ["FORWARD_CHOICE", "ENTER_COMPILE", "FUSED_OP", "LOAD_MODEL", "FORCED_BACKEND"])
def test_the_target_of_each_seam_exists(sources: Sources, release: str, seam: str) -> None:
    target = seams.at(getattr(seams, seam), Version(release))

    assert target is None or sources.find(target) is not None


def test_a_layer_picks_its_forward_without_arguments(sources: Sources, release: str) -> None:
    layer_class, _, method = seams.at(seams.FORWARD_CHOICE, Version(release)).rpartition(".")

    assert parameters(sources.methods(layer_class)[method]) == []


def test_a_layer_keeps_the_forward_that_it_picked_where_we_replace_it(sources: Sources, release: str) -> None:
    assert "_forward_method" in sources.attributes(seams.at(seams.FUSED_OP, Version(release)))


def test_a_model_runner_keeps_its_model_where_we_look_for_it(sources: Sources, release: str) -> None:
    runner = seams.at(seams.LOAD_MODEL, Version(release)).rpartition(".")[0]

    assert "model" in sources.attributes(runner)


def test_hooks_are_registered_and_looked_up_as_we_do(sources: Sources) -> None:
    home = "sglang.srt.plugins.hook_registry"
    registry = sources.methods(f"{home}:HookRegistry")

    assert parameters(registry["register"]) == ["target", "hook", "hook_type", "source"]
    assert "apply_hooks" in registry
    assert {"_hooks", "_patched"} <= sources.attributes(f"{home}:HookRegistry")
    assert {"plugin_name", "dist_name"} <= sources.attributes(f"{home}:HookSource")
    assert "AROUND" in sources.attributes(f"{home}:HookType")


@pytest.mark.parametrize("name", sorted(LATER))
def test_what_came_later_is_absent_before(sources: Sources, release: str, name: str) -> None:
    assert (sources.find(name) is not None) == (Version(release) >= Version(LATER[name]))


@pytest.mark.parametrize("mlp", ["sglang.srt.models.llama:LlamaMLP", "sglang.srt.models.qwen2:Qwen2MLP"])
def test_a_fused_activation_is_where_we_look_for_it(sources: Sources, release: str, mlp: str) -> None:
    fuses = Version(release) >= Version("0.5.23")

    assert ("activation_quant" in sources.attributes(mlp)) == fuses
    assert "act_fn" in sources.attributes(mlp)
    if fuses:
        assert "enabled" in sources.attributes("sglang.srt.layers.quantization.fp8_activation:DenseSiluAndMulQuant")


def test_what_the_adapter_names_of_sglang_exists(sources: Sources) -> None:
    names = {name for file in (PACKAGE / "adapter").rglob("*.py") for name in _named(ast.parse(file.read_text()))}

    assert len(names) > len(LATER), "the adapter names SGLang's layers and interfaces"
    assert [name for name in sorted(names - set(LATER)) if sources.find(name) is None] == []


def _named(tree: ast.Module) -> Iterator[str]:
    """What a module imports from SGLang, and what it names by ``"module:attribute"``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang."):
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        if isinstance(node, ast.Constant) and re.fullmatch(r"sglang\.[\w.]+:[\w.]+", str(node.value)):
            yield str(node.value)
