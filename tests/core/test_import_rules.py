"""Nothing flows back: who may import what, read from the sources of every distribution."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sglang_fl

PACKAGES = Path(__file__).parents[2] / "packages"
CORE = PACKAGES / "sglang-fl-core" / "src"
BACKENDS = [src for src in PACKAGES.glob("*/src") if src != CORE]
REFERENCE = "sglang_fl.reference"
IMPORTERS = {"import_module", "__import__", "resolve_name", "find_spec"}
"""Functions that import a module by its name."""

RECORDS = {f"sglang_fl.{name}" for name, home in sglang_fl._HOMES.items() if home == "records"}
OPEN_TO_BACKENDS = {
    "sglang_fl.hookimpl",
    "sglang_fl.hookspecs.hookimpl",
    "sglang_fl.SglangFlError",
    "sglang_fl.records",
    "sglang_fl.ops",
} | RECORDS


def module_name(path: Path, src: Path) -> str:
    parts = path.relative_to(src).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(src: Path) -> dict[str, str]:
    """Module name -> source."""
    return {module_name(path, src): path.read_text(encoding="utf-8") for path in sorted(src.rglob("*.py"))}


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Every name that a module imports, as ``module`` or ``module.name``, and whether that is when it is imported."""
    yield from _imports(ast.parse(source), at_import=True)


def _imports(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, at_import) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((f"{'.' * node.level}{node.module or ''}.{alias.name}", at_import) for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTERS:
        yield from ((arg.value, at_import) for arg in node.args[:1] if isinstance(arg, ast.Constant))
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, at_import and not inside)


MODULES = sources(CORE)
OF_BACKENDS = {name: (REFERENCE, source) for name, source in MODULES.items() if name.startswith(f"{REFERENCE}.")} | {
    name: (name.partition(".")[0], source) for src in BACKENDS for name, source in sources(src).items()
}
"""Module of a backend -> the backend's package, and the source."""


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def forbidden_to_a_backend(own: str, source: str) -> list[str]:
    """A backend's imports that reach into core or another backend; or into SGLang, while the backend is imported."""
    ours = [(name, at_import) for name, at_import in imports(source) if name.partition(".")[0].startswith("sglang")]
    reaching = [one for one in ours if not any(within(one[0], name) for name in (own, *OPEN_TO_BACKENDS))]
    return [name for name, at_import in reaching if at_import or not within(name, "sglang")]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from sglang_fl import hookimpl, OpImpl, BackendImplKind", []),
        ("from sglang_fl.hookspecs import hookimpl", []),
        ("from sglang_fl.ops import RmsNorm\nfrom sglang_fl.records import Answer", []),
        ("import sglang_fl_acme.ops\nfrom sglang_fl_acme import ops", []),
        ("import torch, sgl_kernel", []),
        ("from sglang_fl import SglangFlError", []),
        ("from sglang_fl.errors import PluginError", ["sglang_fl.errors.PluginError"]),
        ("from sglang_fl import call_op", ["sglang_fl.call_op"]),
        ("import sglang_fl", ["sglang_fl"]),
        ("def f():\n    from sglang_fl.dispatch import Dispatcher", ["sglang_fl.dispatch.Dispatcher"]),
        ("import sglang_fl_cuda", ["sglang_fl_cuda"]),
        ("from sglang.srt import utils", ["sglang.srt.utils"]),
        ("def kernels():\n    from sglang.kernels import ops", []),
        ("import importlib\nimportlib.import_module('sglang.srt')", ["sglang.srt"]),
        ("import pkgutil\npkgutil.resolve_name('sglang_fl.session:session')", ["sglang_fl.session:session"]),
    ],
)
def test_the_rule_for_backends_tells_what_breaks_it(source: str, found: list[str]) -> None:
    assert forbidden_to_a_backend("sglang_fl_acme", source) == found


@pytest.mark.parametrize("name", OF_BACKENDS)
def test_a_backend_imports_only_hookimpl_the_records_and_the_op_contracts(name: str) -> None:
    assert forbidden_to_a_backend(*OF_BACKENDS[name]) == []


@pytest.mark.parametrize("name", MODULES)
def test_core_imports_no_backend(name: str) -> None:
    imported = {one for one, _ in imports(MODULES[name])}
    assert not any(one.startswith("sglang_fl_") for one in imported)
    # The default plugin is loaded like any other, by the one module that loads plugins.
    allowed = {f"{REFERENCE}.hooks"} if name == "sglang_fl.plugins" else set()
    assert within(name, REFERENCE) or {one for one in imported if within(one, REFERENCE)} == allowed


@pytest.mark.parametrize("name", MODULES)
def test_only_the_adapter_imports_sglang(name: str) -> None:
    imported = {one for one, _ in imports(MODULES[name])}
    assert within(name, "sglang_fl.adapter") or not any(within(one, "sglang") for one in imported)


def graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules among ``modules`` that its import imports."""
    edges: dict[str, set[str]] = {}
    for name, source in modules.items():
        reached = [one for one, at_import in imports(source) if at_import]
        targets = {one if one in modules else one.rpartition(".")[0] for one in reached}
        edges[name] = (targets & modules.keys()) - {name}
    return edges


def test_data_flows_one_way_no_module_imports_what_imports_it() -> None:
    edges = graph(MODULES)
    assert sum(map(len, edges.values())) > 50
    order = list(TopologicalSorter(edges).static_order())
    assert order.index("sglang_fl.errors") < order.index("sglang_fl.ranking") < order.index("sglang_fl.session")


def test_a_circle_of_imports_would_be_found() -> None:
    modules = {"a": "import b", "b": "from c import d", "c": "import a"}
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph(modules)).static_order())
    modules["c"] = "def f():\n    import a"
    assert list(TopologicalSorter(graph(modules)).static_order()) == ["c", "b", "a"]


def test_the_hooks_file_of_the_default_plugin_is_cheap() -> None:
    reached = {one for one, at_import in imports(MODULES[f"{REFERENCE}.hooks"]) if at_import}
    assert not any(within(one, "torch") for one in reached)
