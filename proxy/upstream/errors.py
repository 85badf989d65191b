"""What may go wrong between us and a backend?"""

from __future__ import annotations


class BackendError(Exception):
    """No answer that could be passed on."""


class Refused(BackendError):
    """Nothing listens there; the request was not sent."""


class Unanswered(BackendError):
    """The connection was closed before a byte of an answer came: it may have been too old."""


class Stalled(BackendError):
    """It is there, and said nothing for as long as it may be silent."""


class BrokeOff(BackendError):
    """It ended, or went on with nonsense, in the middle of its answer."""


class HandshakeRefused(BackendError):
    """The backend answered a WebSocket's handshake as a request like any other."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status
