"""Uses that Python 3.12 to 3.14 deprecate: none in the product.

Python warns only where the code runs, and CI may have no such Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

import pytest

from tests.architecture.source import modules
from tests.support.paths import ROOT

DEPRECATED = {
    "argparse.FileType": "3.14",
    "ast.Bytes": "removed in 3.14",
    "ast.Ellipsis": "removed in 3.14",
    "ast.NameConstant": "removed in 3.14",
    "ast.Num": "removed in 3.14",
    "ast.Str": "removed in 3.14",
    "asyncio.AbstractEventLoopPolicy": "3.14",
    "asyncio.DefaultEventLoopPolicy": "3.14",
    "asyncio.get_child_watcher": "removed in 3.14",
    "asyncio.get_event_loop": "3.14 raises outside a running loop",
    "asyncio.get_event_loop_policy": "3.14",
    "asyncio.iscoroutinefunction": "3.14: inspect has it",
    "asyncio.set_child_watcher": "removed in 3.14",
    "asyncio.set_event_loop_policy": "3.14",
    "codecs.open": "3.14",
    "collections.abc.ByteString": "3.12",
    "datetime.datetime.utcfromtimestamp": "3.12",
    "datetime.datetime.utcnow": "3.12",
    "importlib.abc.ResourceReader": "removed in 3.14",
    "importlib.abc.Traversable": "removed in 3.14",
    "locale.getdefaultlocale": "3.11",
    "locale.resetlocale": "removed in 3.13",
    "multiprocessing.Pool": "3.14 no longer forks: name the start method by get_context",
    "multiprocessing.Process": "3.14 no longer forks: name the start method by get_context",
    "concurrent.futures.ProcessPoolExecutor": "3.14 no longer forks",
    "os.fork": "3.12 warns in a process with threads",
    "os.forkpty": "3.12 warns in a process with threads",
    "os.popen": "soft-deprecated in 3.14",
    "pkgutil.find_loader": "removed in 3.14",
    "pkgutil.get_loader": "removed in 3.14",
    "pty.fork": "3.12 warns in a process with threads",
    "pty.spawn": "3.12 warns in a process with threads",
    "sqlite3.version": "removed in 3.14",
    "sqlite3.version_info": "removed in 3.14",
    "tarfile.open": "3.14 changes the default filter",
    "tempfile.mktemp": "unsafe",
    "threading.activeCount": "3.10",
    "threading.currentThread": "3.10",
    "typing.ByteString": "3.12",
    "typing.no_type_check_decorator": "3.13",
    "urllib.request.urlretrieve": "legacy",
}
REMOVED_MODULES = (
    *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils"),
    *("imghdr", "imp", "lib2to3", "mailcap", "nntplib", "nturl2path", "pipes", "pkg_resources"),
    *("smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
)
"""Modules that 3.12 and 3.13 removed, or that warn when they are imported."""
POSITIONAL = {"sqlite3.connect": 1, "re.sub": 3, "re.subn": 3, "re.split": 2}
"""Function → arguments that may be positional; 3.13 deprecates more."""
KEYWORDS = {"shutil.rmtree": {"onerror"}, "logging.StreamHandler": {"strm"}}
"""Function → keywords that 3.12 to 3.14 deprecate."""


class Names:
    """Full names of the imported names of a module: ``from os import fork as f``: f → os.fork."""

    def __init__(self, tree: ast.AST) -> None:
        self._known: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for each in node.names:
                    if each.asname:
                        self._known[each.asname] = each.name
            elif isinstance(node, ast.ImportFrom) and node.module:
                for each in node.names:
                    self._known[each.asname or each.name] = f"{node.module}.{each.name}"

    def of(self, node: ast.expr) -> str:
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        first, dot, rest = text.partition(".")
        return self._known.get(first, first) + dot + rest


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield each deprecated use, with its line."""
    names = Names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and names.of(node) in DEPRECATED:
            yield f"line {node.lineno}: {names.of(node)} ({DEPRECATED[names.of(node)]})"
        elif isinstance(node, ast.Import):
            yield from _removed(node, (each.name for each in node.names))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _removed(node, (node.module,))
            for each in node.names:
                if (name := f"{node.module}.{each.name}") in DEPRECATED:
                    yield f"line {node.lineno}: {name} ({DEPRECATED[name]})"
        elif isinstance(node, ast.Call):
            yield from _arguments(node, names.of(node.func))
        elif isinstance(node, ast.Try):
            for line in jumps(node.finalbody):
                yield f"line {line}: a jump out of finally, which hides the exception"
        elif isinstance(node, ast.ClassDef):
            yield from _partial_attributes(node, names)


def _removed(node: ast.stmt, modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        if module.partition(".")[0] in REMOVED_MODULES:
            yield f"line {node.lineno}: the module {module}, which was removed"


def _arguments(call: ast.Call, function: str) -> Iterator[str]:
    if function in POSITIONAL and len(call.args) > POSITIONAL[function]:
        yield f"line {call.lineno}: positional arguments of {function}"
    for each in call.keywords:
        if each.arg in KEYWORDS.get(function, ()):
            yield f"line {call.lineno}: {each.arg} of {function}"


def _partial_attributes(node: ast.ClassDef, names: Names) -> Iterator[str]:
    for each in node.body:
        value = each.value if isinstance(each, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call) and names.of(value.func) == "functools.partial":
            yield f"line {each.lineno}: a partial in a class, which 3.14 makes a method"


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
    others = (ROOT / "manage.py", *ROOT.glob("bench/*.py"), *ROOT.glob("bench/hostile/*.py"))
    found = [
        f"{path.relative_to(ROOT)} {use}"
        for path in (*modules().values(), *others)
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nasyncio.get_event_loop()",
        "import asyncio as aio\naio.get_event_loop()",
        "from asyncio import iscoroutinefunction",
        "from datetime import datetime\ndatetime.utcnow()",
        "import datetime\ndatetime.datetime.utcnow()",
        "import distutils.version",
        "from cgi import escape",
        "import shutil\nshutil.rmtree(path, onerror=f)",
        "from functools import partial\nclass A:\n f = partial(g, 1)",
        "sqlite3.connect(path, 5)",
        "from re import sub\nsub(a, b, c, 0)",
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
        "from inspect import iscoroutinefunction",
        "import shutil\nshutil.rmtree(path, onexc=f)",
        "from functools import partial\nclass A:\n def f(self):\n  return partial(g, 1)",
    ],
)
def test_other_uses_are_not(text: str) -> None:
    assert not list(uses(ast.parse(text)))
