"""Limit on the body of a request to Django.

Django writes a whole body to a temporary file before any view, and so before any key, is checked.
Without this limit outside of Django, any client could fill the disk. The proxy has its own limit.
"""

from __future__ import annotations

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send
from llamactl.core.error_response import send_error
from llamactl.core.errors import BodyTooLarge

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""More than the limits of ``json_parser`` and of the admin's forms, which have better messages."""


class BodyLimit:
    """Refuses bodies of more than ``max_bytes`` with 413."""

    def __init__(self, application: Application, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._application = application
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if _content_length(scope) > self._max_bytes:
            await self._refuse(scope, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # Django drops the body of a disconnected client, and sends no response.
            return {"type": "http.disconnect"} if received > self._max_bytes else message

        await self._application(scope, receive_counted, send)
        if received > self._max_bytes:
            await self._refuse(scope, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        error = BodyTooLarge(f"the request body must have at most {self._max_bytes} bytes")
        await send_error(scope, send, error, (b"connection", b"close"))


def _content_length(scope: Scope) -> int:
    """Return the Content-Length, or 0 without a numeric one, which servers refuse."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
