"""Ids of the requests to Django: one in each response, and in each log line of the request.

The proxy gives its own requests their ids (``proxy.exchange``), because a layer around it would
cost each piece of each stream a call.
"""

from __future__ import annotations

from typing import NamedTuple

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send
from llamactl.core.request_id import HEADER, client_headers, current_request, id_headers, new_id


class DjangoRequest(NamedTuple):
    """The ids of a request to Django."""

    id: str
    client_id: str

    def log_fields(self) -> dict[str, str]:
        return {"request_id": self.id, "client_request_id": self.client_id}


class RequestIds:
    """Adds ``X-Request-Id`` to each response of an application."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request = DjangoRequest(new_id(), client_headers(scope["headers"])[0] or "")

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0].lower() != HEADER]
                added = id_headers(request.id, is_anthropic=False)
                message = {**message, "headers": [*others, *added]}
            await send(message)

        token = current_request.set(request)
        try:
            await self._application(scope, receive, with_id)
        finally:
            current_request.reset(token)
