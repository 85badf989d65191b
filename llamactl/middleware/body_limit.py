"""How large may the body of a request to Django be?

Django writes a whole body to a temporary file before any view, and so before any key, is looked
at: without a bound outside of it, anyone could fill the disk. The proxy has a bound of its own.
"""

from __future__ import annotations

import json

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""More than JSON bodies (``json_body``) and the admin's forms may have, so that those bounds,
which say it more kindly, are met first."""


class BoundedBody:
    """Passes requests on, and answers 413 to one whose body is larger than ``max_bytes``."""

    def __init__(self, application: Application, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._application = application
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if _announced(scope) > self._max_bytes:
            await self._refuse(send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # To Django, a client that went away: it drops what it has, and answers nothing.
            return {"type": "http.disconnect"} if received > self._max_bytes else message

        await self._application(scope, counted, send)
        if received > self._max_bytes:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        details = f"the request body must have at most {self._max_bytes} bytes"
        body = json.dumps({"error": "invalid_request", "details": details}).encode() + b"\n"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _announced(scope: Scope) -> int:
    """The Content-Length; 0 where there is none that is a number (servers refuse those)."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
