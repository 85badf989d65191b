"""Connections to backends: HTTP requests and WebSockets."""

from proxy.upstream.client import Upstream, UpstreamTimeouts
from proxy.upstream.errors import (
    BackendError,
    BrokeOff,
    HandshakeRefused,
    Refused,
    Stalled,
    Unanswered,
    without_frames,
)
from proxy.upstream.response import UpstreamResponse
from proxy.upstream.websocket import Socket

__all__ = [
    "BackendError",
    "BrokeOff",
    "HandshakeRefused",
    "Refused",
    "Socket",
    "Stalled",
    "Unanswered",
    "Upstream",
    "UpstreamResponse",
    "UpstreamTimeouts",
    "without_frames",
]
