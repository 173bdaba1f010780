"""FlagGems on a machine without a GPU: its functions with their real signatures, computed by PyTorch."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tests.flaggems.aten.wheel import search_path

Function = Callable[..., Any]


def flag_gems() -> types.ModuleType:
    """A module with the functions that we call, each under the name and the signature that it has in FlagGems.

    Raises AssertionError for one that FlagGems' package does not export.
    """
    module = types.ModuleType("flag_gems")
    for name, function in _FUNCTIONS.items():
        setattr(module, name, _with_signature(signature_of(name), function))
    return module


def signature_of(name: str) -> inspect.Signature:
    """The signature of what ``flag_gems`` exports as ``name``, read from the release's source."""
    modules = [module for home in _STARRED if (module := _home(home, name)) is not None]
    assert len(modules) == 1, f"{name} comes from {modules or 'nowhere'}"
    (definition,) = (node for node in _tree(modules[0]).body if isinstance(node, ast.FunctionDef) and node.name == name)
    bare = ast.FunctionDef(name=name, args=definition.args, body=[ast.Pass()], decorator_list=[])
    for node in ast.walk(bare):
        if isinstance(node, ast.arg):
            node.annotation = None
    scope: dict[str, Any] = {}
    exec(ast.unparse(ast.fix_missing_locations(bare)), scope)
    return inspect.signature(scope[name])


_STARRED = ("flag_gems.ops", "flag_gems.fused")
"""What ``flag_gems`` imports everything from."""


def _home(package: str, name: str) -> str | None:
    """The module from which ``package`` gets the ``name`` that it exports, or None where it exports none."""
    assert any(isinstance(node, ast.ImportFrom) and node.module == package for node in _tree("flag_gems").body)
    statements = _tree(package).body
    exported = [node.value for node in statements if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)]
    if not any(name in ast.literal_eval(names) for names in exported):
        return None
    imports = (node for node in statements if isinstance(node, ast.ImportFrom))
    return next(node.module for node in imports if name in [alias.name for alias in node.names])


def _tree(module: str) -> ast.Module:
    stem = _folder() / module.replace(".", "/")
    file = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


@cache
def _folder() -> Path:
    """The folder with the installed FlagGems, or with the release."""
    spec = find_spec("flag_gems")
    return search_path() if spec is None or spec.origin is None else Path(spec.origin).parents[1]


def _with_signature(signature: inspect.Signature, function: Function) -> Function:
    """``function``, which takes all arguments by name, called as something with ``signature`` is."""

    def called(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return function(**bound.arguments)

    return called


def _silu_and_mul(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return (F.silu(A.float()) * B.float()).to(A.dtype)


def _gelu_and_mul(x: torch.Tensor, y: torch.Tensor, approximate: str) -> torch.Tensor:
    return (F.gelu(x.float(), approximate=approximate) * y.float()).to(x.dtype)


def _rms_norm(x: torch.Tensor, normalized_shape: list[int], weight: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(x.float(), normalized_shape, weight.float(), eps).to(x.dtype)


def _fused_add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, normalized_shape: list[int], weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    x, residual = x.contiguous(), residual.contiguous()  # as FlagGems does: a copy is what it writes to then
    total = x.float() + residual.float()
    residual.copy_(total)
    return x.copy_(_rms_norm(total, normalized_shape, weight, eps)), residual


def _layer_norm(
    input: torch.Tensor,  # noqa: A002 - FlagGems' name
    normalized_shape: list[int],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight, bias = (None if vector is None else vector.float() for vector in (weight, bias))
    y = F.layer_norm(input.float(), normalized_shape, weight, bias, eps).to(input.dtype)
    rows = input.new_empty(input.numel() // input.shape[-1])
    return y, rows, rows


def _apply_rotary_pos_emb(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool,
    inplace: bool,
) -> tuple[torch.Tensor, ...]:
    assert q.shape[:-2] == k.shape[:-2] == position_ids.shape
    assert 2 * cos.shape[-1] == 2 * sin.shape[-1] == q.shape[-1] == k.shape[-1]
    assert cos.stride(-1) == sin.stride(-1) == 1
    c, s = (table.float()[position_ids].unsqueeze(1) for table in (cos, sin))
    rotated = tuple(_rotated(x.float(), c, s, rotary_interleaved).to(x.dtype) for x in (q, k))
    return tuple(x.copy_(y) for x, y in zip((q, k), rotated, strict=True)) if inplace else rotated


def _rotated(x: torch.Tensor, c: torch.Tensor, s: torch.Tensor, interleaved: bool) -> torch.Tensor:
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, dim=-1)
    pair = (first * c - second * s, second * c + first * s)
    return torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)


_FUNCTIONS: dict[str, Function] = {
    "silu_and_mul": _silu_and_mul,
    "gelu_and_mul": _gelu_and_mul,
    "rms_norm": _rms_norm,
    "fused_add_rms_norm": _fused_add_rms_norm,
    "layer_norm": _layer_norm,
    "apply_rotary_pos_emb": _apply_rotary_pos_emb,
}
