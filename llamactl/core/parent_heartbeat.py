"""Heartbeat of a process to the parent that started it, through an inherited pipe.

The parent replaces a child whose heartbeat ends. A pipe needs neither disk, database nor broker,
whose failures must not look like a hang of the child, and it names the child: a request to the
address that several web processes share would be answered by any of them.
"""

from __future__ import annotations

import os
from contextlib import suppress

VARIABLE = "_LLAMACTL_HEARTBEAT_FD"
"""Environment variable with the descriptor of the pipe's writing end."""


class ParentHeartbeat:
    """The writing end of the pipe; without a parent that listens, ``beat`` does nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @classmethod
    def of_environment(cls) -> ParentHeartbeat:
        """Take the descriptor out of the environment, so that no child inherits it."""
        text = os.environ.pop(VARIABLE, "")
        if not text.isdecimal():
            return cls(None)
        try:
            os.set_inheritable(int(text), False)
            os.set_blocking(int(text), False)
        except OSError:  # inherited through a program that has closed it
            return cls(None)
        return cls(int(text))

    def beat(self) -> None:
        """Show the parent that this process is alive. Never blocks."""
        if self._descriptor is not None:
            # A pipe is full while the parent is stopped, and broken once the parent is killed.
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._descriptor, b"\0")
