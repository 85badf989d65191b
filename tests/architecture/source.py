"""The product's modules and their imports, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("llamactl", "instances", "keys", "nodes", "proxy")


@dataclass(frozen=True)
class Import:
    """One imported module, as a statement names it."""

    importer: str
    imported: str
    line: int
    is_late: bool
    """Whether the statement stands inside a function."""

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.imported}"


@cache
def modules() -> dict[str, Path]:
    """Dotted name → file, of every product module but the migrations."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                found[_name_of(path)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the product, of the product's own modules and of others."""
    return tuple(each for name, path in modules().items() for each in _imports_in(name, path))


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def _name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_in(name: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for imported in _targets(node):
                yield Import(name, imported, node.lineno, id(node) in late)


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module is not None:
        for alias in node.names:
            # "from package import module" names the module, not the package.
            as_module = f"{node.module}.{alias.name}"
            yield as_module if as_module in modules() else node.module
