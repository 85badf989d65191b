"""Rules that hold for the text of every module."""

from __future__ import annotations

from tests.architecture.source import is_within, modules

READERS_OF_THE_ENVIRONMENT = (
    "llamactl.config",
    "llamactl.core.parent_heartbeat",  # the descriptor is a parent's, no setting
    "llamactl.server",  # passes its own environment on to the processes that it starts
    "instances.backends.environment",  # a backend gets the worker's environment, cleaned
    "instances.backends.embedded",  # a program of its own, outside Django
    "instances.supervisor",  # the worker passes its environment on, cleaned
)
ENTRY_POINTS = ("llamactl.asgi", "llamactl.wsgi", "llamactl.celery")
"""Modules that name the settings module in the environment."""


def test_only_config_reads_the_environment() -> None:
    may = (*READERS_OF_THE_ENVIRONMENT, *ENTRY_POINTS)
    wrong = [
        name
        for name, path in modules().items()
        if "os.environ" in path.read_text(encoding="utf-8")
        and not any(is_within(name, room) for room in may)
    ]
    assert not wrong


def test_no_shell_anywhere() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert "shell=True" not in text, name
        assert "os.system" not in text, name
