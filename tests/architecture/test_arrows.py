"""Imports between the rooms of the product: what ARROWS does not list is forbidden.

A module belongs to the longest room that its name begins with. Inside a room every import is
allowed, as long as no circle arises.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.architecture.source import PACKAGES, Import, imports, is_within, modules

ARROWS = {
    # Ground: no app is imported.
    "llamactl.version": "",
    "llamactl.masking": "",
    "llamactl.models": "",
    "llamactl.config": "llamactl.masking",
    "llamactl.core": "llamactl.config llamactl.models",
    "llamactl.logging": "llamactl.core",
    "llamactl.static_files": "",
    "llamactl.api": "llamactl.core",
    "llamactl.admin": "llamactl.core llamactl.models",
    "llamactl.middleware": "llamactl.core",
    # Apps, from the bottom up.
    "nodes": "llamactl.config llamactl.core",
    "nodes.api": "llamactl.api llamactl.config llamactl.masking llamactl.openapi nodes",
    "nodes.admin": "instances llamactl.admin llamactl.masking nodes",
    "instances.backends": "llamactl.config llamactl.core",
    "instances.preflight": "instances instances.backends llamactl.config llamactl.masking nodes",
    "instances.scheduling": "llamactl.config",
    "instances.logs": "llamactl.config llamactl.core nodes",
    "instances": (
        "instances.backends instances.logs instances.preflight instances.scheduling "
        "llamactl.celery llamactl.config llamactl.core llamactl.masking llamactl.models "
        "nodes"
    ),
    "instances.tasks": "instances instances.supervisor",
    "instances.apps": "nodes",
    "instances.api": (
        "instances instances.backends llamactl.api llamactl.config llamactl.core "
        "llamactl.openapi nodes"
    ),
    "instances.admin": (
        "instances instances.backends instances.preflight instances.scheduling keys "
        "llamactl.admin llamactl.config llamactl.core nodes"
    ),
    "instances.supervisor.process": "instances instances.backends",
    "instances.supervisor.orphans": (
        "instances instances.backends instances.supervisor instances.supervisor.process "
        "llamactl.config llamactl.core"
    ),
    "instances.supervisor.state": (
        "instances instances.supervisor instances.supervisor.process llamactl.config "
        "llamactl.core llamactl.models nodes"
    ),
    "instances.supervisor.controller": (
        "instances instances.backends instances.logs instances.scheduling "
        "instances.supervisor instances.supervisor.process instances.supervisor.state "
        "llamactl.config llamactl.core llamactl.masking"
    ),
    "instances.supervisor.scheduling": (
        "instances instances.scheduling instances.supervisor "
        "instances.supervisor.controller instances.supervisor.state llamactl.config "
        "llamactl.core"
    ),
    "instances.supervisor": (
        "instances instances.backends instances.logs instances.scheduling "
        "instances.supervisor.controller instances.supervisor.orphans "
        "instances.supervisor.process instances.supervisor.scheduling "
        "instances.supervisor.state keys llamactl.config llamactl.core nodes"
    ),
    "keys": "instances llamactl.admin llamactl.config llamactl.core llamactl.models",
    "keys.api": "keys llamactl.api llamactl.core llamactl.openapi",
    "keys.admin": "instances instances.admin keys llamactl.admin llamactl.core",
    "proxy.body": "llamactl.core proxy",
    "proxy.upstream": "llamactl.core proxy proxy.body proxy.table",
    # The table holds each instance's request defaults, prepared for the splice of a body.
    "proxy.table": (
        "instances instances.backends instances.scheduling keys llamactl.config llamactl.core "
        "llamactl.middleware llamactl.models nodes proxy proxy.body"
    ),
    # The version: /props of llama.cpp's router tells the build.
    "proxy.routes": "instances llamactl.core llamactl.version proxy proxy.table proxy.upstream",
    "proxy.activation": "instances proxy.table",
    "proxy.openapi": "instances llamactl.core llamactl.openapi nodes proxy",
    "proxy": (
        "instances instances.scheduling keys llamactl.config llamactl.core "
        "llamactl.middleware proxy.activation proxy.body proxy.routes proxy.table "
        "proxy.upstream"
    ),
    # Roof: what is put together from the apps.
    "llamactl.openapi": "llamactl.api llamactl.config llamactl.core proxy.openapi",
    # The stream of the live pages checks its origin, and counts changes by topic.
    "llamactl.console": (
        "instances instances.admin instances.scheduling llamactl.admin llamactl.api "
        "llamactl.config llamactl.core llamactl.masking llamactl.middleware llamactl.models "
        "llamactl.openapi llamactl.version nodes nodes.admin"
    ),
    "llamactl.server.web": (
        "instances.backends llamactl.config llamactl.core llamactl.middleware llamactl.server"
    ),
    "llamactl.server": (
        "instances keys llamactl llamactl.celery llamactl.config llamactl.core "
        "llamactl.server.web llamactl.version nodes"
    ),
    "llamactl.doctor": (
        "instances instances.backends instances.supervisor.process llamactl "
        "llamactl.config llamactl.core llamactl.masking llamactl.server nodes"
    ),
    "llamactl.management": (
        "instances instances.backends llamactl llamactl.config llamactl.core "
        "llamactl.doctor llamactl.server nodes"
    ),
    "llamactl.celery": "llamactl.config",
    "llamactl.apps": "llamactl.celery llamactl.core",
    "llamactl.settings": (
        "instances.backends llamactl.admin llamactl.config llamactl.console "
        "llamactl.core llamactl.version"
    ),
    "llamactl.urls": "llamactl.admin llamactl.api llamactl.console",
    "llamactl.asgi": "llamactl.config llamactl.console llamactl.core llamactl.middleware proxy",
    "llamactl.wsgi": "",
    "llamactl": ("instances keys llamactl.config llamactl.core llamactl.models llamactl.version"),
}

LATE = {
    ("llamactl.apps", "llamactl.console.admin"): "models are loaded when ready() is called",
    ("instances.apps", "instances.local_agent"): "models are loaded when ready() is called",
    ("llamactl.server.web.gunicorn_worker", "llamactl.server.web.gunicorn_server"): (
        "gunicorn's master imports the worker class; the code is loaded after the fork"
    ),
    ("llamactl.doctor.checks", "llamactl.doctor.runtime_checks"): "the settings may not load",
}
"""Imports inside functions, with their reasons."""

WITHOUT = {
    "instances.backends": ("django", "rest_framework"),
    "instances.scheduling": ("rest_framework",),
    "instances.supervisor": ("rest_framework",),
    "nodes": ("proxy",),
    "proxy": ("rest_framework",),
    "llamactl.config": ("django.db", "rest_framework"),
}
"""Packages of others that a room does not need, so that it can be tested without them."""

MODELS = ("instances.models", "keys.models", "nodes.models", "llamactl.models")


def room_of(module: str) -> str:
    rooms = [room for room in ARROWS if is_within(module, room)]
    return max(rooms, key=len)


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def arrows() -> Iterator[tuple[str, str, Import]]:
    for each in imports():
        if is_ours(each.imported):
            start, end = room_of(each.importer), room_of(each.imported)
            if start != end and (each.importer, each.imported) not in LATE:
                yield start, end, each


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    allowed = ARROWS[room].split()
    wrong = [str(each) for start, end, each in arrows() if start == room and end not in allowed]
    assert not wrong, "\n".join(wrong)


def test_every_allowed_arrow_is_used() -> None:
    used = {(start, end) for start, end, _ in arrows()}
    listed = {(start, end) for start, ends in ARROWS.items() for end in ends.split()}
    assert listed <= used, f"no longer needed: {sorted(listed - used)}"


def test_the_ground_imports_no_app() -> None:
    ground = [f"llamactl.{name}" for name in ("core", "config", "api", "admin", "middleware")]
    apps = ("instances", "keys", "nodes", "proxy")
    wrong = [
        str(each)
        for each in imports()
        if any(is_within(each.importer, room) for room in ground)
        and any(is_within(each.imported, app) for app in apps)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_web_side_imports_nothing_of_the_supervisor() -> None:
    supervisor = "instances.supervisor"
    may = (supervisor, "llamactl.doctor", "instances.tasks")
    wrong = [
        str(each)
        for each in imports()
        if is_within(each.imported, supervisor)
        and not any(is_within(each.importer, room) for room in may)
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_inside_functions_are_listed_with_their_reasons() -> None:
    late = {(each.importer, each.imported) for each in imports() if each.is_late}
    ours = {pair for pair in late if is_ours(pair[1])}
    assert ours == set(LATE)


def test_no_circles() -> None:
    """It should be possible to take the modules away one by one, each after all its importers."""
    needed = {
        name: {
            each.imported
            for each in imports()
            if each.importer == name and not each.is_late and each.imported in modules()
        }
        - {name}
        for name in modules()
    }
    while free := [name for name, needs in needed.items() if not needs & needed.keys()]:
        for name in free:
            del needed[name]
    assert not needed, f"in circles, or needing one: {sorted(needed)}"


@pytest.mark.parametrize("room", sorted(WITHOUT))
def test_a_room_does_without_packages_that_it_does_not_need(room: str) -> None:
    wrong = [
        str(each)
        for each in imports()
        if is_within(each.importer, room)
        and any(is_within(each.imported, package) for package in WITHOUT[room])
    ]
    assert not wrong, "\n".join(wrong)


def test_one_module_of_the_proxy_imports_models() -> None:
    importers = {
        each.importer
        for each in imports()
        if is_within(each.importer, "proxy") and each.imported in MODELS
    }
    assert importers == {"proxy.table.refresh"}
