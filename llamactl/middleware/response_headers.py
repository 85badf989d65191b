"""``server.response_headers``: the operator's headers on every response.

One ASGI layer around Django and the proxy, so that errors have the headers as well. The headers
replace others of the same name, except for the ``response_headers`` of the responding backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send

_KEPT = "llamactl.kept_headers"
Headers = tuple[tuple[bytes, bytes], ...]


class ResponseHeaders:
    """Adds the headers to every HTTP response. Needed only with headers configured."""

    def __init__(self, application: Application, headers: Mapping[str, str]) -> None:
        self._application = application
        self._headers = encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = scope.get(_KEPT, ())
                added = [pair for pair in self._headers if pair[0] not in kept]
                names = {name for name, _ in added}
                others = [pair for pair in message["headers"] if pair[0].lower() not in names]
                message = {**message, "headers": [*others, *added]}
            await send(message)

        await self._application(scope, receive, with_headers)


def encoded(headers: Mapping[str, str]) -> Headers:
    """Encode configured headers for ASGI."""
    return tuple(
        (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()
    )


def keep(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Protect these headers of the response to ``scope`` from replacement."""
    scope[_KEPT] = frozenset(name for name, _ in headers)
