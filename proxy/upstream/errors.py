"""Failures between llamactl and a backend."""

from __future__ import annotations


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
