"""In every release SGLang's layers are what the bridges take them for. Read from source: see ``sources``."""

from __future__ import annotations

import ast
import inspect

import pytest
import torch
from packaging.version import Version

from sglang_fl.adapter import seams
from sglang_fl.adapter.bridges import BRIDGES, Bridge
from sglang_fl.adapter.bridges.norm import _UNEXPRESSED
from sglang_fl.layers import LAYERS, SUBCLASSES, WRAPPERS
from sglang_fl.ops import CONTRACTS
from sglang_fl.records import Platform, always
from sglang_fl.reference.hooks import sglang_fl_register_ops
from tests.adapter.releases.sources import Sources, parameters
from tests.adapter.releases.wheels import RELEASES

FORWARDS = [f"forward_{platform}" for platform in ("native", "cuda", "hip", "npu", "cpu", "xpu", "musa")]
"""What a layer may pick as its forward. ``forward_aiter`` is not among it: SGLang pins it when it builds the layer."""

CONSTRUCTORS = {
    "SiluAndMul": [],
    "GeluAndMul": ["approximate"],
    "RMSNorm": [
        *("hidden_size", "eps", "has_weight", "weight_dtype"),  # the weight and variance_epsilon tell
        *("cast_x_before_out_mul", "fp32_residual", "override_orig_dtype", "x_pad_to_multiple"),  # _UNEXPRESSED
        "var_hidden_size",  # _UNEXPRESSED, as variance_size_override
        "force_native",  # pins the layer
    ],
    "GemmaRMSNorm": ["hidden_size", "eps"],
    "Gemma3RMSNorm": ["dim", "eps"],
    "LayerNorm": ["hidden_size", "eps", "elementwise_affine", "bias", "dtype"],
    "RotaryEmbedding": [
        *("head_size", "rotary_dim", "is_neox_style"),
        *("max_position_embeddings", "base", "dtype", "position_start"),  # the cache tells: positions are its rows
    ],
}
"""What each layer can be built with. A new parameter may change what the layer computes: read what it does, let the
bridge express it or leave the layer to SGLang, and only then add it here."""

each_bridge = pytest.mark.parametrize("bridge", BRIDGES, ids=lambda bridge: bridge.class_name)


def bridged_parameters(bridge: Bridge) -> list[inspect.Parameter]:
    """The parameters of the forward that ``bridge`` makes."""
    cpu = Platform(name="cpu", device_type="cpu", is_available=always, in_tree=True)
    functions = {impl.op: impl.load() for impl in sglang_fl_register_ops(cpu)}
    fn = functions[LAYERS[bridge.class_name][0]]
    layer = torch.nn.Module()
    layer.head_size = layer.rotary_dim = layer.is_neox_style = layer.eps = 1
    return list(inspect.signature(bridge.forward(layer, fn, fn)).parameters.values())


def served_subclasses(sources: Sources, target: str) -> set[str]:
    """The subclasses of a layer that call what the layer itself would call."""
    forwards = [name for name in sources.methods(target) if name.startswith("forward_")]
    base = sources.mro(target)[0]
    served = set()
    for found in sources.subclasses(target, "sglang.srt"):
        mro = sources.mro(f"{found.module}:{found.node.name}")
        below = [node for owner in mro[: mro.index(base)] for node in owner.node.body]
        own = {node.name: ast.unparse(node) for node in below if isinstance(node, ast.FunctionDef)}
        if own.keys().isdisjoint(forwards) and "super().forward(" in own.get("forward", "super().forward("):
            served.add(found.node.name)
    return served


@each_bridge
def test_a_bridged_layer_picks_its_forward_where_we_hook_it(sources: Sources, release: str, bridge: Bridge) -> None:
    fused_op = sources.mro(seams.at(seams.FUSED_OP, Version(release)))[0]

    assert fused_op in sources.mro(bridge.target)


@each_bridge
def test_a_bridge_takes_all_that_the_layers_forwards_take(sources: Sources, bridge: Bridge) -> None:
    methods = sources.methods(bridge.target)
    ours = bridged_parameters(bridge)
    names = [parameter.name for parameter in ours]
    theirs = {name: parameters(methods[name]) for name in FORWARDS if name in methods}

    assert {name: taken for name, taken in theirs.items() if taken != names[: len(taken)]} == {}
    assert all(parameter.default is not parameter.empty for parameter in ours[len(theirs["forward_native"]) :])


@each_bridge
def test_a_layer_is_built_with_nothing_that_we_do_not_know(sources: Sources, bridge: Bridge) -> None:
    taken = parameters(sources.methods(bridge.target)["__init__"])

    assert [name for name in taken if name not in CONSTRUCTORS[bridge.class_name]] == []


@each_bridge
def test_a_layer_has_what_its_op_reads(sources: Sources, bridge: Bridge) -> None:
    of_bridge = {"GeluAndMul": ("approximate",), "Gemma3RMSNorm": ("weight", "eps")}
    read = of_bridge.get(bridge.class_name, CONTRACTS[LAYERS[bridge.class_name][0]].reads)

    assert set(read) <= sources.attributes(bridge.target)


def test_an_rms_norm_keeps_what_we_cannot_express_by_the_names_that_we_look_for(sources: Sources) -> None:
    assert set(_UNEXPRESSED) <= sources.attributes("sglang.srt.layers.layernorm:RMSNorm")


@each_bridge
def test_the_subclasses_that_we_name_are_those_that_call_what_the_layer_calls(
    sources: Sources, release: str, bridge: Bridge
) -> None:
    named = set(SUBCLASSES.get(bridge.class_name, ()))
    if release != RELEASES[-1]:  # which alone has all of them
        named &= {found.node.name for found in sources.subclasses(bridge.target, "sglang.srt")}

    assert served_subclasses(sources, bridge.target) == named


def test_the_layers_that_we_name_are_those_of_the_bridges() -> None:
    assert sorted(LAYERS) == sorted(bridge.class_name for bridge in BRIDGES)


def test_what_sglang_wraps_norms_in_for_transformers_calls_what_the_norm_calls(sources: Sources) -> None:
    found = sources.find("sglang.srt.models.transformers:replace_rms_norm_class")
    assert found is not None
    made = [node for node in ast.walk(found.node) if isinstance(node, ast.ClassDef)]
    assert tuple(node.name for node in made) == WRAPPERS
    for node in made:
        assert [method.name for method in node.body if isinstance(method, ast.FunctionDef)] == ["forward"]
        assert "super().forward(" in ast.unparse(node)
