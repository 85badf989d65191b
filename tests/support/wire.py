"""Both ends of the wire as bare sockets: a backend that plays bytes, and a client that reads them.

These helpers know no more of HTTP than the end of a message: the bytes are the tests' subject.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha1

SECONDS = 20
"""The bound of every wait: generous, not an expectation."""


@dataclass
class Message:
    """One HTTP message as it came over the wire."""

    head: bytes
    body: bytes = b""
    is_whole: bool = True
    """Whether it came to its own end; else the connection closed first."""

    @property
    def first_line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.first_line.split()[1])

    def values(self, name: bytes) -> list[bytes]:
        """The values of a header, by its name in lower case, as they came."""
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:]]
        return [value.strip(b" ") for key, _, value in lines if key.lower() == name]


async def read_message(
    reader: asyncio.StreamReader, *, has_body: bool = True, gone: asyncio.Event | None = None
) -> Message:
    """The next message. Raises IncompleteReadError where the connection ends before its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    message = Message(head.removesuffix(b"\r\n\r\n"))
    if not has_body or head.startswith((b"HTTP/1.1 1", b"HTTP/1.1 204", b"HTTP/1.1 304")):
        return message
    try:
        if b"chunked" in message.values(b"transfer-encoding"):
            while True:
                size = int(await reader.readuntil(b"\r\n"), 16)
                if size == 0:
                    while await reader.readuntil(b"\r\n") != b"\r\n":
                        pass  # a trailer
                    return message
                message.body += await reader.readexactly(size)
                await reader.readexactly(2)
        for length in message.values(b"content-length"):
            message.body = await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        if isinstance(error, asyncio.IncompleteReadError):
            message.body += error.partial
        message.is_whole = False
    return message


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


def switching_protocols(handshake: Message) -> bytes:
    """The answer that opens the WebSocket of a client's handshake."""
    (key,) = handshake.values(b"sec-websocket-key")
    accept = base64.b64encode(sha1(key + GUID).digest())  # noqa: S324 - the protocol's choice
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


Play = Callable[["Session"], Awaitable[None]]


class Session:
    """One connection to the backend."""

    def __init__(
        self, backend: RawBackend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.backend, self.reader, self.writer = backend, reader, writer

    async def request(self) -> Message:
        message = await read_message(self.reader)
        self.backend.requests.append(message)
        self.backend.asked.set()
        return message

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
        await self.writer.drain()

    async def until_closed(self) -> None:
        """Return when the other side has closed the connection."""
        try:
            while await self.reader.read(2**16):
                pass
        except ConnectionError:
            pass


class RawBackend:
    """Plays ``script`` on each connection; or ``answers``, one for each request in turn."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.asked = asyncio.Event()
        self.answers: list[bytes] = []
        self.script: Play = self._answer
        self.connections = 0
        self.closed = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(Session(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, session: Session) -> None:
        while True:
            await session.request()
            number = min(len(self.requests), len(self.answers)) - 1
            await session.send(self.answers[number] if self.answers else OK)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class RawClient:
    """One connection to llamactl."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    key: bytes = b"llamactl-mgmt-manager"
    sent: list[bytes] = field(default_factory=list)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)

    def ask(self, start: bytes, *lines: bytes, body: bytes = b"") -> None:
        """Send a request line (without the version), header lines and a body, with the key."""
        head = [start + b" HTTP/1.1", b"Host: x", b"Authorization: Bearer " + self.key, *lines]
        self.send(b"\r\n".join(head) + b"\r\n\r\n" + body)

    def post(self, path: bytes, body: bytes, *lines: bytes) -> None:
        self.ask(b"POST " + path, b"Content-Length: %d" % len(body), *lines, body=body)

    async def answer(self, *, has_body: bool = True) -> Message:
        async with asyncio.timeout(SECONDS):
            return await read_message(self.reader, has_body=has_body)

    async def is_closed(self) -> bool:
        """Whether nothing more comes but the end."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    def disconnect(self) -> None:
        self.writer.transport.abort()
