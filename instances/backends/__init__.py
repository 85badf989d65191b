"""Backend programs: their flags, their command lines, and what llamactl knows of each.

A backend is a folder with a subclass of ``Backend``, and an entry in ``registry``. How to add a
backend is told in ``docs/add-a-backend.md``.
"""

from __future__ import annotations

from instances.backends.base import Backend, UnknownBackend
from instances.backends.command_errors import CommandError, EmptyCommand
from instances.backends.command_line import ParsedCommand
from instances.backends.docker import remove_command, stop_command
from instances.backends.registry import (
    BACKENDS,
    backend_choices,
    backend_for,
    backend_types,
    config_sections,
    default_backend_type,
)
from instances.backends.values import InvalidBackendOptions

__all__ = [
    "BACKENDS",
    "Backend",
    "CommandError",
    "EmptyCommand",
    "InvalidBackendOptions",
    "ParsedCommand",
    "UnknownBackend",
    "backend_choices",
    "backend_for",
    "backend_types",
    "config_sections",
    "default_backend_type",
    "remove_command",
    "stop_command",
]
