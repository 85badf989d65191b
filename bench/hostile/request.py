"""One hostile request, as bytes."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
KEY = b"{key}"
"""Stands for an inference key in the bytes of a request."""
MANAGEMENT = b"{management}"
"""Stands for a management key."""
COOKIES = b"{cookies}"
"""Stands for the cookies of an admin's session."""
CSRF = b"{csrf}"
"""Stands for the token of the admin's forms."""


@dataclass(frozen=True)
class Input:
    """One hostile request."""

    name: str
    request: bytes
    then: bytes = b""
    """Sent after the answer's first line."""

    @property
    def size(self) -> int:
        return len(self.request) + len(self.then)


def head(
    lines: bytes, *, target: bytes = b"/healthz", method: bytes = b"GET", name: str = ""
) -> Input:
    """A request without a body, with these header lines."""
    request = b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (method, target, lines)
    return Input(name or lines[:30].decode("latin-1"), request)


def post(
    path: bytes,
    content_type: bytes,
    body: bytes,
    *,
    name: str,
    key: bytes = KEY,
    method: bytes = b"POST",
) -> Input:
    """A request with a body and a key."""
    lines = b"Authorization: Bearer %b\r\nContent-Type: %b\r\nContent-Length: %d"
    request = head(lines % (key, content_type, len(body)), target=path, method=method).request
    return Input(name, request + body)


def admin_post(path: bytes, content_type: bytes, body: bytes, *, name: str) -> Input:
    """A form of an admin's session."""
    lines = b"Cookie: %b\r\nX-CSRFToken: %b\r\nContent-Type: %b\r\nContent-Length: %d"
    request = head(
        lines % (COOKIES, CSRF, content_type, len(body)), target=path, method=b"POST"
    ).request
    return Input(name, request + body)
