"""ASGI clients by hand: they can stall, disconnect, and count messages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from llamactl.core.asgi_types import Application, Message


@dataclass
class AsgiResponse:
    """The response as far as it was received."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key == name.encode():
                return value.decode()
        return None


class AsgiRequest:
    """One request in progress; ``disconnect()`` may come at any moment."""

    def __init__(
        self,
        application: Application,
        path: str,
        *,
        method: str = "POST",
        body: bytes | None = None,
        json: object = None,
        key: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        query: bytes = b"",
    ) -> None:
        content = body if body is not None else (b"" if json is None else orjson.dumps(json))
        sent = list(headers or [])
        if key is not None:
            sent.append((b"authorization", b"Bearer " + key.encode()))
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query,
            "headers": sent,
        }
        self.response = AsgiResponse()
        self.chunk_came = asyncio.Event()
        self._application = application
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": content, "more_body": False})
        self.task: asyncio.Task[None] | None = None

    def start(self) -> AsgiRequest:
        self.task = asyncio.ensure_future(
            self._application(self.scope, self._inbox.get, self._send)
        )
        return self

    def disconnect(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def finish(self, within_seconds: float = 10.0) -> AsgiResponse:
        if self.task is None:
            self.start()
        assert self.task is not None
        async with asyncio.timeout(within_seconds):
            await self.task
        return self.response

    async def first_chunk(self, within_seconds: float = 10.0) -> None:
        async with asyncio.timeout(within_seconds):
            await self.chunk_came.wait()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not self.response.status, "a second http.response.start"
            self.response.status = message["status"]
            self.response.headers = list(message["headers"])
            return
        assert self.response.status, "a body before its start"
        assert not self.response.is_complete, "a body after its end"
        if message.get("body"):
            self.response.chunks.append(message["body"])
            self.chunk_came.set()
        self.response.is_complete = not message.get("more_body", False)


class AsgiSocket:
    """One WebSocket in progress, as a server would pass it to the application."""

    def __init__(
        self,
        application: Application,
        path: str,
        *,
        key: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        query: bytes = b"",
        subprotocols: list[str] | None = None,
        can_refuse_with_a_status: bool = True,
    ) -> None:
        sent = list(headers or [])
        if key is not None:
            sent.append((b"authorization", b"Bearer " + key.encode()))
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query,
            "headers": sent,
            "subprotocols": subprotocols or [],
            "extensions": {"websocket.http.response": {}} if can_refuse_with_a_status else {},
        }
        self.refusal = AsgiResponse()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.is_reading = asyncio.Event()
        """Cleared while the client does not read."""
        self.is_reading.set()
        self.is_gone = False
        self._application = application
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        self.received = 0
        """The number of messages that the application has taken."""
        self.task = asyncio.ensure_future(application(self.scope, self._receive, self._send))

    def put(self, content: str | bytes) -> None:
        kind = "text" if isinstance(content, str) else "bytes"
        self._inbox.put_nowait({"type": "websocket.receive", kind: content})

    def disconnect(self, **closing: object) -> None:
        self.is_gone = True
        self.is_reading.set()
        self._inbox.put_nowait({"type": "websocket.disconnect", **closing})

    async def next(self, within_seconds: float = 10.0) -> Message:
        """The application's next message; fails where the application ends instead."""
        async with asyncio.timeout(within_seconds):
            getting = asyncio.ensure_future(self.sent.get())
            await asyncio.wait((getting, self.task), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                await self.task
                raise AssertionError("the application ended without a message")
            return getting.result()

    async def finish(self, within_seconds: float = 10.0) -> None:
        async with asyncio.timeout(within_seconds):
            await self.task

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        self.received += 1
        return message

    async def _send(self, message: Message) -> None:
        await self.is_reading.wait()
        if self.is_gone:
            raise OSError("the client is gone")
        if message["type"] == "websocket.http.response.start":
            self.refusal.status = message["status"]
            self.refusal.headers = list(message["headers"])
        elif message["type"] == "websocket.http.response.body":
            self.refusal.chunks.append(message["body"])
            self.refusal.is_complete = True
        else:
            self.sent.put_nowait(message)
