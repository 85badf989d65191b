"""The connections to the backends: requests with answers, and WebSockets."""

from proxy.upstream.client import Limits, Upstream
from proxy.upstream.errors import (
    BackendError,
    BrokeOff,
    HandshakeRefused,
    Refused,
    Stalled,
    Unanswered,
)
from proxy.upstream.response import Answer
from proxy.upstream.websocket import Socket

__all__ = [
    "Answer",
    "BackendError",
    "BrokeOff",
    "HandshakeRefused",
    "Limits",
    "Refused",
    "Socket",
    "Stalled",
    "Unanswered",
    "Upstream",
]
