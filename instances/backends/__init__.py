"""Which backends are there, and how is a process of one started?

A new backend is a module with a subclass of ``Backend`` and a line in ``registry``.
"""

from __future__ import annotations

from instances.backends.base import Backend, UnknownBackend
from instances.backends.command_line import CommandError, EmptyCommand, ParsedCommand
from instances.backends.docker import remove_command, stop_command
from instances.backends.registry import BACKEND_TYPES, BACKENDS, backend_for
from instances.backends.values import InvalidBackendOptions
from instances.launch import (
    ExecutableNotFound,
    Launch,
    build_launch,
    effective_api_key,
    find_docker,
    find_program,
    runs_in_docker,
)

__all__ = [
    "BACKENDS",
    "BACKEND_TYPES",
    "Backend",
    "CommandError",
    "EmptyCommand",
    "ExecutableNotFound",
    "InvalidBackendOptions",
    "Launch",
    "ParsedCommand",
    "UnknownBackend",
    "backend_for",
    "build_launch",
    "effective_api_key",
    "find_docker",
    "find_program",
    "remove_command",
    "runs_in_docker",
    "stop_command",
]
