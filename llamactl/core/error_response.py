"""Error responses over ASGI, to an HTTP request or to a WebSocket's handshake."""

from __future__ import annotations

from collections.abc import Iterable

from llamactl.core.asgi_types import Scope, Send
from llamactl.core.error_format import render
from llamactl.core.errors import LlamactlError

OWN_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of the proxy's own answers. A 404 may be cached otherwise, and the list of models depends
on the key, which a cache sees in the header Authorization alone."""


def is_anthropic(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request comes from a client of Anthropic's API: its clients send the version."""
    return any(name == b"anthropic-version" for name, _ in headers)


async def send_error(
    scope: Scope, send: Send, error: LlamactlError, *extra_headers: tuple[bytes, bytes]
) -> None:
    """Send ``error`` in the shape of the request's path.

    A server without the extension for HTTP responses to a handshake gets a WebSocket close code.
    """
    prefix = "websocket." if scope["type"] == "websocket" else ""
    if prefix and "websocket.http.response" not in (scope.get("extensions") or {}):
        code = 1008 if error.status < 500 else 1011
        await send({"type": "websocket.close", "code": code, "reason": error.code})
        return
    status, headers, body = render(
        scope["path"], error, is_anthropic=is_anthropic(scope["headers"])
    )
    headers += (*OWN_HEADERS, *extra_headers)
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": body})
