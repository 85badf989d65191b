"""The WebSocket of an open admin page: authentication, its messages, and its end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from llamactl.console.live.connection import Connection, Ending, Topics
from llamactl.console.live.hub import LiveHub
from llamactl.console.live.viewer import session_key_of
from llamactl.core.asgi_types import Application, Receive, Scope, Send
from llamactl.middleware.origin_guard import OriginGuard

logger = logging.getLogger(__name__)

PATH = "/admin/stream"
MAX_MESSAGES = 100
"""Pages send nothing. Messages of a client are dropped, and after these the client is too."""
MAX_MESSAGE_LENGTH = 1024
MAX_HANDSHAKES = 64
"""Handshakes whose sessions are looked up at one time."""


def stream_application(hub: LiveHub, *, public_origin: str) -> Application:
    """Return the application of ``PATH``, for pages of llamactl's own origin alone.

    The session's cookie comes with a WebSocket of any page in the browser, and cookies know no
    ports. So the origin is checked whether keys are required or not; names of hosts are not, as a
    cookie belongs to the name it was made for.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamConsumer(hub)(scope, receive, send)

    return OriginGuard(serve, host="", allowed_origins=[], public_origin=public_origin)


class StreamConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """One page. A Channels consumer with a dispatch of its own.

    The stock dispatch subscribes each page to the channel layer: a message is decoded once a page,
    and no page opens without a broker. The hub follows the subscription of the routing table.
    """

    _handshakes = 0

    def __init__(self, hub: LiveHub) -> None:
        super().__init__()
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.base_send = send
        if (await receive())["type"] != "websocket.connect":
            return
        found = await self._open(scope)
        with suppress(OSError):  # the client is gone
            await self.accept()
            if isinstance(found, Ending):
                await self.close(*found.value)
                return
            await self._serve(found, receive)

    async def _open(self, scope: Scope) -> Connection | Ending:
        """Return the page's connection, or why it gets none."""
        key = session_key_of(scope["headers"])
        if not key:
            return Ending.LOGGED_OUT
        if StreamConsumer._handshakes >= MAX_HANDSHAKES:
            return Ending.TOO_MANY_PAGES
        StreamConsumer._handshakes += 1
        try:
            viewer = await self._hub.authenticate(key)
        except DatabaseError as error:
            logger.info("no live page: %s", error)
            return Ending.DATABASE_AWAY
        finally:
            StreamConsumer._handshakes -= 1
        if viewer is None:
            return Ending.LOGGED_OUT
        topics = Topics.from_query(scope["query_string"].decode("latin-1"))
        connection = Connection(key, viewer, topics)
        if not connection.may_stay(viewer):
            return Ending.NOT_PERMITTED
        return self._hub.refusal_of(key) or connection

    async def _serve(self, connection: Connection, receive: Receive) -> None:
        await self._hub.join(connection)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.create_task(self._send_messages(connection)),
            asyncio.create_task(self._drop_received(connection, receive)),
            connection.ending,
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._hub.leave(connection)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.wait(tasks[:2])
        if connection.ending.done() and not connection.ending.cancelled():
            await self.close(*connection.ending.result().value)

    async def _send_messages(self, connection: Connection) -> None:
        with suppress(OSError):
            while True:
                await self.send(await connection.next())

    async def _drop_received(self, connection: Connection, receive: Receive) -> None:
        """Drop what the client sends, until it disconnects or sends too much."""
        for _ in range(MAX_MESSAGES):
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            body = message.get("text") or message.get("bytes") or message.get("utf8") or ""
            if len(body) > MAX_MESSAGE_LENGTH:
                break
        connection.end(Ending.TOO_MANY_MESSAGES)
