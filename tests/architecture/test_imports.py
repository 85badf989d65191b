"""The arrows between the rooms point one way: proxy and API → domain → storage."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FORBIDDEN = [
    # (files, what they must not import)
    ("instances/*.py", ("keys", "proxy", "rest_framework")),
    ("instances/supervisor/*.py", ("keys", "proxy", "rest_framework")),
    ("instances/backends/**/*.py", ("django", "keys", "nodes", "proxy", "instances.models")),
    ("nodes/*.py", ("keys", "proxy", "instances", "rest_framework")),
    ("keys/*.py", ("proxy",)),
    ("proxy/**/*.py", ("rest_framework",)),
    ("llamactl/config/*.py", ("instances", "keys", "nodes", "proxy")),
]
ALLOWED = {
    # Edges of the admin and of Celery's start-up: they wire rooms together.
    "instances/supervisor/bootstep.py": ("keys",),
}
MODELS = ("instances.models", "keys.models", "nodes.models", "llamactl.models")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize(("files", "forbidden"), FORBIDDEN)
def test_room_imports_nothing_of_the_rooms_above_it(files: str, forbidden: tuple[str, ...]) -> None:
    paths = [path for path in ROOT.glob(files) if path.name != "admin.py"]
    assert paths
    for path in paths:
        name = str(path.relative_to(ROOT))
        banned = set(forbidden) - set(ALLOWED.get(name, ()))
        wrong = [found for found in imports(path) if any(is_within(found, b) for b in banned)]
        assert not wrong, f"{name} imports {wrong}"


def test_only_refresh_knows_the_models_in_the_proxy() -> None:
    for path in ROOT.glob("proxy/**/*.py"):
        if path.name != "refresh.py":
            assert not set(imports(path)) & set(MODELS), path.name


def test_only_config_reads_the_environment() -> None:
    # Entry points name the settings module; programs that run outside Django are their own.
    own = {"asgi.py", "wsgi.py", "celery.py"}
    for path in ROOT.glob("[iknpl]*/**/*.py"):
        name = str(path.relative_to(ROOT))
        if name.startswith(("llamactl/config/", "llamactl/server/", "instances/backends/e")):
            continue
        # A backend's environment is what the worker's own has of it.
        if path.name in own or name.startswith("instances/supervisor/"):
            continue
        assert "os.environ" not in path.read_text(encoding="utf-8"), name


def test_no_shell_anywhere() -> None:
    for path in ROOT.glob("[iknpl]*/**/*.py"):
        text = path.read_text(encoding="utf-8")
        assert "shell=True" not in text, path
        assert "os.system" not in text, path
