"""Headers of every answer of the management API, of its errors too.

Answers hold keys, prompts and paths of files: no cache may keep them, and no browser may take them
for a page.
"""

from __future__ import annotations

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send

_ADDED = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class ManagementHeaders:
    """Adds ``Cache-Control: no-store`` and ``nosniff`` to the answers below ``/api/``."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._application(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                names = {name.lower() for name, _ in headers}
                headers += [pair for pair in _ADDED if pair[0] not in names]
                message = {**message, "headers": headers}
            await send(message)

        await self._application(scope, receive, with_headers)
