"""``Secure`` on the cookies of a request by https, of each request for itself.

Without ``server.public_url`` llamactl may be reached both by https, through a reverse proxy, and by
http on this machine. The scheme is the connection's, or that of a reverse proxy on this machine.
"""

from __future__ import annotations

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send


class SecureCookies:
    """Adds ``Secure`` to each ``Set-Cookie`` of a response that travels by https."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("scheme") != "https":
            await self._application(scope, receive, send)
            return

        async def with_secure_cookies(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, _secured(name, value)) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await self._application(scope, receive, with_secure_cookies)


def _secured(name: bytes, value: bytes) -> bytes:
    if name.lower() != b"set-cookie":
        return value
    attributes = {part.strip().lower() for part in value.split(b";")[1:]}
    return value if b"secure" in attributes else value + b"; Secure"
