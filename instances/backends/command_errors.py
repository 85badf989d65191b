"""Errors of a pasted command line."""

from __future__ import annotations

from llamactl.core.errors import LlamactlError


class CommandError(LlamactlError):
    """A pasted command line that can't be made into options."""

    code = "parse_error"
    status = 400


class EmptyCommand(CommandError):
    """A command line without a program and without flags."""

    code = "invalid_command"

    def __init__(self) -> None:
        super().__init__("Command cannot be empty")


class CommandSyntaxError(CommandError):
    """Text that is no command line: an open quote, ``---flag``, NUL, too long, a pipe."""


class WrongArity(CommandError):
    """A flag without the value that it takes, or with a value that it does not take."""


class WrongCommand(CommandError):
    """A command of another program than the backend's server, or with words of no flag."""
