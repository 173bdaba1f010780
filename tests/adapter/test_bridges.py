"""Every argument of a layer's forward is either expressed in the op or handed to SGLang's own forward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.models.transformers import replace_rms_norm_class
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sglang_fl.adapter.binding import Binder, Deferred, bridge_of
from sglang_fl.dispatch import Dispatcher
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import Candidate
from sglang_fl.records import BackendImplKind, OpImpl, Platform
from sglang_fl.reference.hooks import sglang_fl_register_ops
from sglang_fl.reference.rotary import rotary_embedding
from sglang_fl.settings import load_settings
from tests.core.samples import CPU

pytestmark = pytest.mark.usefixtures("_inference")

PLATFORM = Platform(name="acme", device_type="cpu", is_available=lambda: True, total_memory=lambda index: 0)
X = torch.randn(5, 64)
RESIDUAL = torch.randn(5, 64)
ADDITION = torch.randn(5, 64)


def _reference() -> list[Candidate]:
    return [Candidate(impl, "reference", "sglang-fl-core") for impl in sglang_fl_register_ops(platform=CPU)]


def _bound(layer: Any, *impls: OpImpl, **environ: str) -> Any:
    """The layer, bound as the adapter binds it when SGLang asks for its forward."""
    candidates = [*_reference(), *(Candidate(impl, "acme", "acme-chip") for impl in impls)]
    binder = Binder(Dispatcher(candidates, SelectionPolicy()), load_settings(environ), PLATFORM)
    layer._forward_method = binder.forward_for(layer, layer.forward_native)
    return layer


def _random(layer: Any) -> Any:
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)
    return layer


def _same(ours: Any, theirs: Any) -> None:
    ours, theirs = (value if isinstance(value, tuple) else (value,) for value in (ours, theirs))
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6)


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "silu": (lambda c: c.SiluAndMul(), (X,)),
    "silu 3-D": (lambda c: c.SiluAndMul(), (torch.randn(2, 3, 64),)),
    "silu empty": (lambda c: c.SiluAndMul(), (torch.randn(0, 64),)),
    "gelu tanh": (lambda c: c.GeluAndMul("tanh"), (X,)),
    "gelu erf": (lambda c: c.GeluAndMul("none"), (X,)),
    "rms": (lambda c: c.RMSNorm(64), (X,)),
    "rms residual": (lambda c: c.RMSNorm(64), (X, RESIDUAL)),
    "rms residual and addition": (lambda c: c.RMSNorm(64), (X, RESIDUAL, ADDITION)),
    "rms addition without residual": (lambda c: c.RMSNorm(64), (X, None, ADDITION)),
    "rms without weight": (lambda c: c.RMSNorm(64, has_weight=False), (X, RESIDUAL)),
    "rms fp32 residual": (lambda c: c.RMSNorm(64, fp32_residual=True), (X.bfloat16(), RESIDUAL.bfloat16())),
    "rms cast before weight": (lambda c: c.RMSNorm(64, cast_x_before_out_mul=True), (X.bfloat16(),)),
    "rms variance of a part": (lambda c: c.RMSNorm(64, var_hidden_size=32), (X,)),
    "rms other dtype": (lambda c: c.RMSNorm(64, override_orig_dtype=torch.float32), (X.bfloat16(),)),
    "rms 3-D": (lambda c: c.RMSNorm(64), (torch.randn(2, 3, 64), torch.randn(2, 3, 64))),
    "rms empty": (lambda c: c.RMSNorm(64), (torch.randn(0, 64), torch.randn(0, 64))),
    "gemma": (lambda c: c.GemmaRMSNorm(64), (X,)),
    "gemma residual and addition": (lambda c: c.GemmaRMSNorm(64), (X, RESIDUAL, ADDITION)),
    "gemma addition without residual": (lambda c: c.GemmaRMSNorm(64), (X, None, ADDITION)),
    "gemma3": (lambda c: c.Gemma3RMSNorm(64), (X,)),
    "gemma3 residual": (lambda c: c.Gemma3RMSNorm(64), (X, RESIDUAL)),
    "layer norm": (lambda c: c.LayerNorm(64), (X,)),
    "layer norm bare": (lambda c: c.LayerNorm(64, elementwise_affine=False, bias=False), (X.bfloat16(),)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bound_layer_answers_as_sglang_does(layers: SimpleNamespace, case: str) -> None:
    build, args = CASES[case]
    layer = _random(build(layers))
    theirs = layer.forward_native(*(_copy(arg) for arg in args))
    bound = _bound(layer)
    _same(bound(*(_copy(arg) for arg in args)), theirs)  # the call on probation
    _same(bound(*(_copy(arg) for arg in args)), theirs)  # and one of those that follow


def test_heads_that_gemma_3_sees_transposed_keep_their_layout(layers: SimpleNamespace) -> None:
    layer = _random(layers.Gemma3RMSNorm(64))
    heads = torch.randn(1, 7, 4, 64).transpose(1, 2)
    theirs = layer.forward_native(heads)
    bound = _bound(layer)
    for _ in range(2):
        ours = bound(heads)
        _same(ours, theirs)
        assert ours.permute(0, 2, 1, 3).is_contiguous()


ROPES: dict[str, Any] = {
    "neox": lambda c: c.RotaryEmbedding(64, 64, 128, 10000, True, torch.float32),
    "gpt-j": lambda c: c.RotaryEmbedding(64, 64, 128, 10000, False, torch.float32),
    "partial": lambda c: c.RotaryEmbedding(64, 32, 128, 10000, True, torch.float32),
    "partial gpt-j": lambda c: c.RotaryEmbedding(64, 32, 128, 10000, False, torch.float32),
    "llama 3": lambda c: c.Llama3RotaryEmbedding(64, 64, 128, 10000, True, torch.float32, 8.0, 1.0, 4.0, 64),
    "linear scaling": lambda c: c.LinearScalingRotaryEmbedding(64, 64, 128, 10000, True, 4.0, torch.float32),
}


@pytest.mark.parametrize("offsets", [None, 3])
@pytest.mark.parametrize("rope", ROPES)
def test_a_bound_rotary_embedding_answers_as_sglang_does(
    layers: SimpleNamespace, rope: str, offsets: int | None
) -> None:
    layer = ROPES[rope](layers)
    positions = torch.randint(0, 100, (5,))
    q, k, _ = torch.randn(5, (4 + 2 + 2) * 64).split([4 * 64, 2 * 64, 2 * 64], dim=-1)  # views, as models pass them
    shift = None if offsets is None else torch.full((5,), offsets)
    theirs = layer.forward_native(positions, q.clone(), k.clone(), shift)
    bound = _bound(layer)
    for _ in range(2):
        ours = bound(positions, q.clone(), k.clone(), shift)
        _same(ours, theirs)


def test_a_kernel_that_rotates_in_place_is_not_copied(layers: SimpleNamespace) -> None:
    layer = _bound(layers.RotaryEmbedding(64, 32, 128, 10000, True, torch.float32), _impl("rotary_embedding", _zero))
    q, k = torch.randn(5, 256), torch.randn(5, 128)
    layer(torch.arange(5), q, k)
    got_q, got_k = layer(torch.arange(5), q, k)
    assert got_q is q
    assert got_k is k
    assert (q.view(5, 4, 64)[..., :32] == 0).all()
    assert (q.view(5, 4, 64)[..., 32:] != 0).all()


def test_a_rotary_embedding_without_a_key_rotates_the_query(layers: SimpleNamespace) -> None:
    layer = layers.RotaryEmbedding(64, 64, 128, 10000, True, torch.float32)
    q = torch.randn(5, 256)
    theirs, _ = layer.forward_native(torch.arange(5), q.clone(), q.clone())
    got, key = _bound(layer)(torch.arange(5), q, None)
    assert key is None
    _same(got, theirs)


def test_a_key_that_is_given_for_the_query_too_is_rotated_once_by_an_op_that_overwrites_both(
    layers: SimpleNamespace,
) -> None:
    def one_after_the_other(
        obj: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for given in (query, key):
            given.copy_(rotary_embedding(obj, given, None, *rest)[0])
        return query, key

    layer = layers.RotaryEmbedding(64, 64, 128, 10000, True, torch.float32)
    positions, key = torch.arange(5), torch.randn(5, 64)
    _, wanted = layer.forward_native(positions, key.clone(), key.clone())
    _bound(layer, _impl("rotary_embedding", one_after_the_other))
    _, rotated = layer(positions, key, key)
    assert rotated.data_ptr() == key.data_ptr()
    torch.testing.assert_close(rotated, wanted)


@pytest.mark.parametrize("rotary_dim", [64, 32])
def test_what_a_rotary_embedding_is_given_is_rotated_as_llama_4_needs_it(
    layers: SimpleNamespace, rotary_dim: int
) -> None:
    layer = layers.RotaryEmbedding(64, rotary_dim, 128, 10000, True, torch.float32)
    rows = torch.randn(5, 256 + 128)
    theirs = torch.cat(layer.forward_native(torch.arange(5), *rows.clone().split([256, 128], dim=-1)), dim=-1)
    _bound(layer)(torch.arange(5), *rows.split([256, 128], dim=-1))
    _same(rows, theirs)


def test_a_rotary_embedding_takes_no_tokens(layers: SimpleNamespace) -> None:
    layer = _bound(layers.RotaryEmbedding(64, 64, 128, 10000, True, torch.float32))
    q, k = layer(torch.arange(0), torch.randn(0, 256), torch.randn(0, 128))
    assert q.shape == (0, 256)
    assert k.shape == (0, 128)


def test_the_rotary_cache_is_followed_when_sglang_replaces_it(layers: SimpleNamespace) -> None:
    layer = _bound(layers.RotaryEmbedding(64, 64, 16, 10000, True, torch.float32))
    q, k = torch.randn(1, 64), torch.randn(1, 64)
    layer(torch.tensor([1]), q.clone(), k.clone())
    layer._ensure_cos_sin_cache_length(500)
    far = torch.tensor([400])
    _same(layer(far, q.clone(), k.clone()), layer.forward_native(far, q.clone(), k.clone()))


def test_a_fused_cache_write_goes_to_sglang(layers: SimpleNamespace) -> None:
    layer = layers.RotaryEmbedding(64, 64, 16, 10000, True, torch.float32)
    seen: list[Any] = []
    candidates = Dispatcher(_reference(), SelectionPolicy())
    layer._forward_method = Binder(candidates, load_settings({}), PLATFORM).forward_for(
        layer, lambda *args: seen.append(args)
    )
    layer("positions", "query", "key", None, "where to write")
    assert seen == [("positions", "query", "key", None, "where to write")]


def test_an_fp8_linear_behind_a_norm_is_left_to_sglang(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt.layers.quantization.fp8 import Fp8LinearMethod
    from sglang.srt.platforms.cpu import CpuSRTPlatform

    from sglang_fl.adapter.bridges import norm

    monkeypatch.setattr(norm, "current_platform", CpuSRTPlatform())
    method = object.__new__(Fp8LinearMethod)
    linear = torch.nn.Module()
    linear.quant_method, linear.input_scale = method, torch.ones(1)
    method.block_quant = method.use_mxfp8 = method.use_marlin = False
    layer, seen = layers.RMSNorm(64), []
    binder = Binder(Dispatcher(_reference(), SelectionPolicy()), load_settings({}), PLATFORM)
    layer._forward_method = binder.forward_for(layer, lambda *args: seen.append(args))
    layer(X)
    assert seen == []
    layer(X, None, None, linear)
    assert len(seen) == 1
    layer.fuse_input_quant(linear)
    layer(X)
    assert len(seen) == 2


def test_the_kernel_is_what_a_bound_activation_calls(layers: SimpleNamespace) -> None:
    def kernel(obj: Any, x: torch.Tensor) -> torch.Tensor:
        return x[..., :32]

    layer = _bound(layers.SiluAndMul(), _impl("silu_and_mul", kernel))
    layer(X)
    assert layer._forward_method.__func__ is kernel  # no frame of ours in between


def test_a_deferred_layer_is_bound_by_its_first_call(layers: SimpleNamespace) -> None:
    layer = _bound(layers.RMSNorm(64))
    assert isinstance(layer._forward_method, Deferred)
    layer(X)
    assert not isinstance(layer._forward_method, Deferred)


def test_a_layer_that_was_never_called_compiles_without_a_break(layers: SimpleNamespace) -> None:
    layer = _random(_bound(layers.RMSNorm(64)))
    layer._forward_method.bind()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    _same(compiled(X, RESIDUAL.clone()), layer.forward_native(X, RESIDUAL.clone()))


def test_a_policy_block_around_a_first_call_does_not_bind_the_layer(layers: SimpleNamespace) -> None:
    def kernel(obj: Any, x: torch.Tensor) -> torch.Tensor:
        return x[..., :32]

    layer = _bound(layers.SiluAndMul(), _impl("silu_and_mul", kernel))
    with SelectionPolicy(prefer="reference"):
        layer(X)
    assert layer._forward_method.__func__ is kernel


def test_an_empty_first_call_neither_proves_nor_condemns(layers: SimpleNamespace) -> None:
    def refuses_no_rows(obj: Any, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 0:
            msg = "a grid of 0"
            raise RuntimeError(msg)
        return x[..., :32]

    layer = _bound(layers.SiluAndMul(), _impl("silu_and_mul", refuses_no_rows))
    assert layer(torch.empty(0, 64)).shape == (0, 32)
    layer(X)
    assert layer._forward_method.__func__ is refuses_no_rows


@pytest.mark.parametrize("on_npu", [True, False])
def test_gemmas_norm_stays_with_pytorch_where_sglangs_users_want_it_so(
    layers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, on_npu: bool
) -> None:
    from sglang_fl.adapter.bridges import norm

    monkeypatch.setattr(norm, "is_npu", lambda: on_npu)
    monkeypatch.setenv("SGLANG_NPU_FORWARD_NATIVE_GEMMA_RMS_NORM", "1")
    layer = _bound(layers.GemmaRMSNorm(64))
    layer(X)
    assert (layer._forward_method == layer.forward_native) == on_npu


@pytest.mark.parametrize("name", ["RMSNorm", "GemmaRMSNorm", "Gemma3RMSNorm", "LayerNorm", "SiluAndMul"])
def test_deterministic_inference_keeps_sglangs_norms_and_nothing_else(layers: SimpleNamespace, name: str) -> None:
    layer = getattr(layers, name)(*([] if name == "SiluAndMul" else [64]))
    binder = Binder(Dispatcher(_reference(), SelectionPolicy()), load_settings({}), PLATFORM)
    binder.batch_invariant = True
    layer._forward_method = binder.forward_for(layer, layer.forward_native)
    layer(X)
    assert (layer._forward_method == layer.forward_native) == (name != "SiluAndMul")


def test_a_bound_layer_compiles_without_a_break(layers: SimpleNamespace) -> None:
    layer = _random(_bound(layers.RMSNorm(64)))
    eager = layer(X, RESIDUAL.clone())
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    _same(compiled(X, RESIDUAL.clone()), eager)


@pytest.mark.parametrize("name", ["MRotaryEmbedding", "DeepseekScalingRotaryEmbedding", "Llama4VisionRotaryEmbedding"])
def test_a_subclass_with_a_forward_of_its_own_keeps_it(layers: SimpleNamespace, name: str) -> None:
    cls = getattr(layers, name)
    layer = torch.nn.Module.__new__(cls)
    torch.nn.Module.__init__(layer)
    binder = Binder(Dispatcher(_reference(), SelectionPolicy()), load_settings({}), PLATFORM)
    bridge = bridge_of(cls)
    assert bridge is not None
    own = object()
    assert binder.bind(bridge, layer, own) is own
    binding = binder.binding(layer)
    assert binding is not None
    assert "of its own" in str(binding.kept)


def test_gemmas_norm_as_sglang_wraps_it_for_transformers_is_served() -> None:
    layer = _bound(_random(replace_rms_norm_class(GemmaRMSNorm(64), 64)), _impl("gemma_rms_norm", _twice))
    x = X.expand(1, *X.shape)
    _same(layer(x), 2 * x)


def test_a_norm_that_rounds_before_it_multiplies_is_told_as_kept_however_it_is_wrapped() -> None:
    layer = replace_rms_norm_class(LlamaRMSNorm(64), 64)
    binder = Binder(Dispatcher(_reference(), SelectionPolicy()), load_settings({}), PLATFORM)
    binding = binder.binding(layer)
    assert binding is not None
    assert (binding.kept, binding.meant) == ("cast_x_before_out_mul=True", False)


def _twice(obj: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    return 2 * x


@pytest.mark.parametrize("listed", ["RMSNorm", "rms_norm"])
def test_the_blacklist_speaks_of_classes_and_of_ops(layers: SimpleNamespace, listed: str) -> None:
    layer = _bound(layers.RMSNorm(64), SGLANG_FL_OOT_BLACKLIST=listed)
    layer(X)
    assert layer._forward_method == layer.forward_native


@pytest.mark.parametrize(("listed", "served"), [("RMSNorm", True), ("silu_and_mul", False)])
def test_the_whitelist_leaves_the_rest_to_sglang(layers: SimpleNamespace, listed: str, served: bool) -> None:
    layer = _bound(layers.RMSNorm(64), SGLANG_FL_OOT_WHITELIST=listed)
    layer(X)
    assert (layer._forward_method != layer.forward_native) == served


def test_a_layer_that_sglang_pins_is_reported_as_pinned(layers: SimpleNamespace) -> None:
    layer = layers.RMSNorm(64, force_native=True)
    binder = Binder(Dispatcher(_reference(), SelectionPolicy()), load_settings({}), PLATFORM)
    binding = binder.binding(layer)
    assert binding is not None
    assert binding.kept == "SGLang pins its forward"


def _impl(op: str, fn: Any) -> OpImpl:
    return OpImpl(op=op, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme", fn=fn)


def _zero(
    obj: Any, query: Any, key: Any, cos: Any, sin: Any, positions: Any, interleaved: bool, inplace: bool
) -> tuple[Any, Any]:
    return query.zero_(), key.zero_()


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
