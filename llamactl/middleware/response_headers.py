"""Which headers does the operator want on every answer? ``server.response_headers``.

One layer around everything, Django, the proxy and their refusals alike. They take the place of
headers of the same name, but not of those that the config names for the backend which answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send

_KEPT = "llamactl.kept_headers"
Headers = tuple[tuple[bytes, bytes], ...]


class ResponseHeaders:
    """Adds the headers to every HTTP answer; only for where there are any."""

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
    """Configured headers as ASGI has them."""
    return tuple(
        (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()
    )


def keep(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Say that the answer to this request has these headers already, for good."""
    scope[_KEPT] = frozenset(name for name, _ in headers)
