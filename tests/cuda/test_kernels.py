"""Where the kernels come from, in every release; and what is said of one that does not load."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
import torch

from sglang_fl_cuda import kernels
from tests.adapter.releases.sources import Sources
from tests.adapter.releases.wheels import RELEASES, source_folder
from tests.cuda import stand_ins
from tests.cuda.stand_ins import ACTIVATIONS, NO_ROUTING, signature_of, source_of

ACTIVATION_HOMES = ("sglang.kernels.ops.activation.activation", "sglang.srt.layers.activation")
PAGE = """
[sgl_kernel] CRITICAL: Could not load any common_ops library!

Error details from previous import attempts:
- ImportError: libcuda.so.1: cannot open shared object file
- ModuleNotFoundError: No module named 'common_ops'
"""


def imported() -> list[str]:
    """What ``kernels.py`` imports from SGLang, as ``module:name``."""
    nodes = ast.walk(ast.parse(inspect.getsource(kernels)))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sglang.")]
    return [f"{node.module}:{alias.name}" for node in froms for alias in node.names]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_of_sglang_has_what_is_imported_from_it(release: str) -> None:
    sources = Sources(source_folder(release))
    names = [*imported(), "sglang.srt.layers.layernorm:layernorm"]
    assert len(names) > 5
    assert [name for name in names if sources.find(name) is None] == []


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_calls_the_kernels_with_the_same_arguments(release: str) -> None:
    sources = Sources(source_folder(release))
    rope = "sglang.kernels.ops.attention.rope"
    acts = [f"{home}:{op}" for home in ACTIVATION_HOMES for op in ACTIVATIONS]
    wanted = {
        f"{ACTIVATION_HOMES[0]}:activation_module": ["dtype", "fast_math"],
        f"{rope}:_jit_fused_rope_module": ["is_neox", "rope_dim", "dtype", "q_dtype"],
        **{name: ["input", "out"] for name in acts},
        "sglang.srt.layers.layernorm:layernorm": ["input", "gamma", "beta", "eps"],
        f"{rope}:apply_rope_inplace": ["q", "k", "cos_sin_cache", "positions", "is_neox", "rope_dim"],
        f"{rope}:rotary_embedding_with_key": ["positions", "query", "key", "head_size", "cos_sin_cache", "is_neox"],
    }
    found = {}
    for name in wanted:
        function = sources.find(name)
        assert function is not None and isinstance(function.node, ast.FunctionDef), name
        args = function.node.args
        taken = [arg.arg for arg in (*args.args, *args.kwonlyargs)]
        found[name] = [argument for argument in taken if argument not in NO_ROUTING]
    assert found == wanted


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("op", "launch"),
    [
        (
            f"{ACTIVATION_HOMES[0]}:_run_activation_inplace",
            [
                "module = activation_module(input.dtype)",
                "input_2d = input.view(-1, hidden_size * 2)",
                "out_2d = out.view(-1, hidden_size)",
                "module.run_activation(input_2d, out_2d, op_name)",
            ],
        ),
        (
            "sglang.kernels.ops.attention.rope:apply_rope_inplace",
            [
                "rope_dim = rope_dim or cos_sin_cache.size(-1)",
                "module = _jit_fused_rope_module(is_neox, rope_dim, k.dtype, q.dtype)",
                "module.run_rope(q, k, cos_sin_cache, positions)",
            ],
        ),
    ],
)
def test_every_release_launches_as_we_do(release: str, op: str, launch: list[str]) -> None:
    function = Sources(source_folder(release)).find(op)
    assert function is not None and isinstance(function.node, ast.FunctionDef)
    assert [ast.unparse(statement) for statement in function.node.body[-len(launch) :]] == launch


def test_where_sglang_logs_its_ops_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    for name, module in stand_ins.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for level, is_logged in (("3", True), ("0", False)):
        monkeypatch.setenv("SGLANG_KERNEL_API_LOGLEVEL", level)
        assert (kernels.activations().launcher is None, kernels.rotaries().launcher is None) == (is_logged, is_logged)


@pytest.mark.parametrize(("capability", "home"), [((9, 0), 0), ((8, 0), 0), ((10, 0), 1), ((12, 0), 1)])
def test_activations_come_from_where_this_device_can_have_every_width(
    capability: tuple[int, int], home: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    for name, module in stand_ins.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    wanted = [getattr(sys.modules[ACTIVATION_HOMES[home]], op) for op in ACTIVATIONS]
    *found, launcher = kernels.activations()
    assert found == wanted
    assert (launcher is None) == (home == 1)  # there SGLang chooses between two kernels


def test_sgl_kernel_takes_the_weight_before_epsilon_and_the_residual_before_both() -> None:
    tree = source_of("sgl_kernel", "elementwise.py")
    for norm in ("rmsnorm", "gemma_rmsnorm"):
        assert list(signature_of(tree, norm).parameters)[:3] == ["input", "weight", "eps"]
    for norm in ("fused_add_rmsnorm", "gemma_fused_add_rmsnorm"):
        assert list(signature_of(tree, norm).parameters)[:4] == ["input", "residual", "weight", "eps"]


def test_a_kernel_library_that_does_not_load_is_an_import_error_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sgl_kernel"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise ImportError({PAGE!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sgl_kernel", raising=False)
    with pytest.raises(ImportError, match=r"^sglang .* with sglang-kernel .*: ImportError: libcuda.so.1: cannot open"):
        kernels.norms()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ImportError(PAGE), "ImportError: libcuda.so.1: cannot open shared object file"),
        (OSError("libcudart.so.13: no such file\nat line 3"), "OSError: libcudart.so.13: no such file"),
        (RuntimeError(), "RuntimeError: "),
    ],
)
def test_a_cause_is_one_line(error: Exception, cause: str) -> None:
    assert kernels.cause(error) == cause


@pytest.mark.gpu
def test_all_kernels_load_on_a_gpu() -> None:
    for group in (kernels.activations(), kernels.norms(), kernels.rotaries()):
        assert all(callable(kernel) for kernel in group if kernel is not None)
    assert kernels.layer_norm() is None or callable(kernels.layer_norm())
