"""Uses that Python 3.12 to 3.14 deprecate: none in the product.

Python warns only where the code runs, and CI may have no such Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import modules

DEPRECATED = {
    "asyncio.get_event_loop": "3.14 raises outside a running loop",
    "asyncio.iscoroutinefunction": "3.14: inspect has it",
    "asyncio.get_event_loop_policy": "3.14",
    "asyncio.set_event_loop_policy": "3.14",
    "asyncio.DefaultEventLoopPolicy": "3.14",
    "asyncio.AbstractEventLoopPolicy": "3.14",
    "asyncio.get_child_watcher": "removed in 3.14",
    "codecs.open": "3.14",
    "datetime.utcnow": "3.12",
    "datetime.utcfromtimestamp": "3.12",
    "locale.getdefaultlocale": "3.11",
    "os.fork": "3.12 warns in a process with threads",
    "os.forkpty": "3.12 warns in a process with threads",
    "os.popen": "soft-deprecated in 3.14",
    "pkgutil.find_loader": "removed in 3.14",
    "pkgutil.get_loader": "removed in 3.14",
    "pty.fork": "3.12 warns in a process with threads",
    "pty.spawn": "3.12 warns in a process with threads",
    "tarfile.open": "3.14 changes the default filter",
    "typing.ByteString": "3.12",
    "urllib.request.urlretrieve": "legacy",
}
POSITIONAL = {"sqlite3.connect": 1, "re.sub": 3, "re.subn": 3, "re.split": 2}
"""Function → arguments that may be positional; 3.13 deprecates more."""


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield each deprecated use, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in DEPRECATED:
            yield f"line {node.lineno}: {ast.unparse(node)} ({DEPRECATED[ast.unparse(node)]})"
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                if (name := f"{node.module}.{each.name}") in DEPRECATED:
                    yield f"line {node.lineno}: {name} ({DEPRECATED[name]})"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in POSITIONAL and len(node.args) > POSITIONAL[name]:
                yield f"line {node.lineno}: positional arguments of {name}"
        if isinstance(node, ast.Try):
            for line in jumps(node.finalbody):
                yield f"line {line}: a jump out of finally, which hides the exception"


def jumps(statements: list[ast.stmt], *, is_in_loop: bool = False) -> Iterator[int]:
    """Yield the lines of ``return``, ``break`` and ``continue`` that leave the statements."""
    for each in statements:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(each, ast.Return) or (
            isinstance(each, ast.Break | ast.Continue) and not is_in_loop
        ):
            yield each.lineno
        is_loop = isinstance(each, ast.For | ast.AsyncFor | ast.While)
        inner = [child for child in ast.iter_child_nodes(each) if isinstance(child, ast.stmt)]
        handlers = [child for child in ast.iter_child_nodes(each) if hasattr(child, "body")]
        blocks = [*(h.body for h in handlers if not isinstance(h, ast.stmt | ast.expr)), inner]
        for block in blocks:
            yield from jumps(block, is_in_loop=is_in_loop or is_loop)


def test_the_product_uses_nothing_deprecated() -> None:
    found = [
        f"{name} {use}"
        for name, path in modules().items()
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nasyncio.get_event_loop()",
        "from asyncio import iscoroutinefunction",
        "sqlite3.connect(path, 5)",
        "re.sub(a, b, c, 0)",
        "def f():\n try:\n  g()\n finally:\n  return 1",
        "def f():\n try:\n  g()\n finally:\n  if h():\n   return 1",
        "def f():\n try:\n  g()\n finally:\n  try:\n   h()\n  except E:\n   return 1",
        "while a:\n try:\n  g()\n finally:\n  break",
    ],
)
def test_a_deprecated_use_is_found(text: str) -> None:
    assert list(uses(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "sqlite3.connect(path, timeout=5)",
        "def f():\n try:\n  return g()\n finally:\n  h()",
        "try:\n g()\nfinally:\n for a in b:\n  break",
        "try:\n g()\nfinally:\n def f():\n  return 1",
    ],
)
def test_other_uses_are_not(text: str) -> None:
    assert not list(uses(ast.parse(text)))
