"""Failures between llamactl and a backend."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class BackendError(Exception):
    """No response that could be relayed."""


class Refused(BackendError):
    """The connection was refused; the request was not sent."""


class Unanswered(BackendError):
    """The connection was closed before the response: its keep-alive may have timed out."""


class Stalled(BackendError):
    """The backend sent, or took, nothing within its time limit."""


class BrokeOff(BackendError):
    """The backend ended, or broke the protocol, in the middle of its response."""


class HandshakeRefused(BackendError):
    """The backend answered a WebSocket's handshake with an ordinary response."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def without_frames(error: E) -> E:
    """Drop the tracebacks of an error and of its causes, for a caller that keeps the error.

    A traceback holds the frames that the error passed, and from Python 3.12 on also their callers'
    frames. The caller's own frame would be in a cycle with the error, and the whole body with it.
    """
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            left += [each.__cause__, each.__context__]
    return error
