"""CORS: the web pages that may call llamactl from a browser.

One ASGI layer around the proxy and Django, since streamed responses need the same headers as the
views'. A request without ``Origin`` costs one pass over its headers.
"""

from __future__ import annotations

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send
from llamactl.core.headers import header

METHODS = b"GET, POST, PUT, DELETE, OPTIONS"
MAX_AGE_SECONDS = 300
Headers = list[tuple[bytes, bytes]]


class CrossOrigin:
    """Answers preflight requests and adds CORS headers, by the seed's ``server.allowed_*``.

    Credentials are never allowed: keys are sent in headers, and the admin's cookie is for the
    admin alone.
    """

    def __init__(
        self,
        application: Application,
        *,
        allowed_origins: list[str],
        allowed_headers: list[str],
    ) -> None:
        self._application = application
        self._allows_all = "*" in allowed_origins
        self._origins = frozenset(origin.encode() for origin in allowed_origins)
        self._all_headers = "*" in allowed_headers
        self._headers = ", ".join(allowed_headers).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        origin = header(scope["headers"], b"origin") if is_http else None
        if origin is None and (self._allows_all or not is_http):
            await self._application(scope, receive, send)
            return
        added = self._response_headers(origin)
        requested_method = header(scope["headers"], b"access-control-request-method")
        if scope["method"] == "OPTIONS" and None not in (origin, requested_method):
            if self._allows_all or origin in self._origins:
                requested = header(scope["headers"], b"access-control-request-headers") or b""
                added += self._preflight(requested)
            await send({"type": "http.response.start", "status": 204, "headers": added})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._application(scope, receive, with_headers)

    def _response_headers(self, origin: bytes | None) -> Headers:
        """Return the headers that allow this origin to read the response, or not."""
        if self._allows_all:
            return [(b"access-control-allow-origin", b"*")]
        # Refusals, and answers to programs, must not come out of a cache for an allowed page.
        vary = (b"vary", b"Origin")
        if origin is not None and origin in self._origins:
            return [(b"access-control-allow-origin", origin), vary]
        return [vary]

    def _preflight(self, requested_headers: bytes) -> Headers:
        return [
            (b"access-control-allow-methods", METHODS),
            (
                b"access-control-allow-headers",
                requested_headers if self._all_headers else self._headers,
            ),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
        ]
