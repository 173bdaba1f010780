"""A package's source, read without being imported: an import of SGLang costs 15 seconds, a parsed module 50 ms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A statement that binds a name, and the module that has it."""

    module: str
    node: ast.stmt


class FoundClass(NamedTuple):
    """A class, and the module that has it."""

    module: str
    node: ast.ClassDef


class Sources:
    """The modules below one folder of a search path.

    Names are written as in :func:`pkgutil.resolve_name`: ``"package.module:Class.method"``, or all dots.

    Args:
        folder: the folder that holds the packages' own folders.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree = cache(self._parse)
        self._classes = cache(self._read_classes)

    def find(self, name: str) -> Found | None:
        """What binds ``name``, through re-exports and base classes; None where nothing does."""
        module, attributes = self._split(name)
        found = self._in_module(module, attributes[0]) if attributes else Found(module, ast.Pass())
        for attribute in attributes[1:]:
            found = found and self._in_class(found, attribute)
        return found

    def mro(self, name: str) -> list[FoundClass]:
        """The class ``name`` and its bases as far as they are here, nearest first. Raises LookupError for no class."""
        found = self.find(name)
        if found is None or not isinstance(found.node, ast.ClassDef):
            msg = f"{name} is no class in {self._folder}"
            raise LookupError(msg)
        return list(self._mro(FoundClass(found.module, found.node)))

    def methods(self, name: str) -> dict[str, ast.FunctionDef]:
        """The methods of the class ``name``, inherited ones included."""
        functions = (node for found in reversed(self.mro(name)) for node in found.node.body)
        return {node.name: node for node in functions if isinstance(node, ast.FunctionDef)}

    def attributes(self, name: str) -> set[str]:
        """What the class ``name`` binds, and what its methods set on ``self``; inherited ones included."""
        return {attribute for found in self.mro(name) for attribute in _attributes(found.node)}

    def subclasses(self, name: str, package: str) -> list[FoundClass]:
        """The classes at the top of a module below ``package`` that inherit from the class ``name``."""
        root = self.mro(name)[0]
        names, known = {root.node.name}, 0
        while len(names) > known:  # by name first, since a search is faster than a parse
            known = len(names)
            names |= {child for _, child, bases in self._classes(package) if names & bases}
        candidates = (f"{module}:{child}" for module, child, _ in self._classes(package) if child in names)
        return [mro[0] for mro in map(self.mro, candidates) if root in mro[1:]]

    def _split(self, name: str) -> tuple[str, list[str]]:
        """The longest prefix of ``name`` that is a module, and what follows it."""
        parts = name.replace(":", ".").split(".")
        lengths = range(len(parts), 0, -1)
        length = next((length for length in lengths if self._file(".".join(parts[:length])) is not None), 0)
        return ".".join(parts[:length]), parts[length:]

    def _file(self, module: str) -> Path | None:
        stem = self._folder / module.replace(".", "/")
        return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)

    def _parse(self, module: str) -> ast.Module:
        file = self._file(module)
        return ast.parse(file.read_text("utf-8") if file else "")

    def _read_classes(self, package: str) -> list[tuple[str, str, set[str]]]:
        """(module, class, words among its bases) for each class at the top of a module."""
        return [
            (".".join(file.relative_to(self._folder).with_suffix("").parts), child, set(re.findall(r"\w+", bases)))
            for file in sorted((self._folder / package.replace(".", "/")).rglob("*.py"))
            for child, bases in re.findall(r"^class (\w+)\(([^)]*)\)", file.read_text("utf-8"), re.MULTILINE)
        ]

    def _in_module(self, module: str, name: str) -> Found | None:
        for node in _statements(self._tree(module)):
            if name in _bound(node):
                return self._imported(module, node, name) if isinstance(node, ast.ImportFrom) else Found(module, node)
        return None

    def _imported(self, module: str, node: ast.ImportFrom, name: str) -> Found | None:
        origin = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
        home = self._home(module, node)
        return None if home == module else self.find(f"{home}:{origin}")

    def _home(self, module: str, node: ast.ImportFrom) -> str:
        """The module that ``node``, which may be relative, imports from."""
        file = self._file(module)
        levels_up = node.level - (file is not None and file.name == "__init__.py")
        package = module.split(".")[: -levels_up or None] if node.level else []
        return ".".join([*package, *([node.module] if node.module else [])])

    def _in_class(self, found: Found, name: str) -> Found | None:
        if not isinstance(found.node, ast.ClassDef):
            return None
        owners = self._mro(FoundClass(found.module, found.node))
        nodes = (Found(owner.module, node) for owner in owners for node in owner.node.body)
        return next((found for found in nodes if name in _bound(found.node)), None)

    def _mro(self, found: FoundClass) -> Iterator[FoundClass]:
        """Depth first, which is Python's order where no class is inherited twice."""
        yield found
        for base in found.node.bases:
            parent = self._in_module(found.module, ast.unparse(base))
            if parent is not None and isinstance(parent.node, ast.ClassDef):
                yield from self._mro(FoundClass(parent.module, parent.node))


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of a method's parameters in their order, without ``self``."""
    args = function.args
    return [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)][1:]


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The module's statements, those under ``if`` and ``try`` included."""
    for node in tree.body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from (child for child in ast.walk(node) if isinstance(child, ast.stmt))
        else:
            yield node


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return {node.name}
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """What a class's body binds; ``self.x = ...`` and ``self.register_buffer("x", ...)`` anywhere in it."""
    for statement in node.body:
        yield from _bound(statement)
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store) and ast.unparse(child.value) == "self":
            yield child.attr
        if isinstance(child, ast.Call) and ast.unparse(child.func) == "self.register_buffer":
            yield ast.literal_eval(child.args[0])
