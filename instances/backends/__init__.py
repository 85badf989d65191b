"""Which backends are there, and how is a process of one started?

A new backend is a module with a subclass of ``Backend`` and a line in ``registry``.
"""

from __future__ import annotations

from instances.backends.base import Backend, UnknownBackend
from instances.backends.command_line import CommandError, EmptyCommand, ParsedCommand
from instances.backends.docker import remove_command, stop_command
from instances.backends.registry import BACKEND_TYPES, BACKENDS, backend_for
from instances.backends.values import InvalidBackendOptions

__all__ = [
    "BACKENDS",
    "BACKEND_TYPES",
    "Backend",
    "CommandError",
    "EmptyCommand",
    "InvalidBackendOptions",
    "ParsedCommand",
    "UnknownBackend",
    "backend_for",
    "remove_command",
    "stop_command",
]
