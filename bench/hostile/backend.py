"""A hostile backend: healthy, and at each other path an answer that its caller must bound.

``python backend.py … --port PORT`` as llamactl starts it; other arguments are ignored.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator

MIB = 1024 * 1024
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n"
_EVENTS = b"Content-Type: text/event-stream\r\n"


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _gzip_bomb() -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    yield _CHUNKED % b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n"
    for _ in range(256):
        packed = packer.compress(bytes(MIB))
        if packed:
            yield b"%x\r\n%b\r\n" % (len(packed), packed)
    packed = packer.flush()
    yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)


def _line() -> Iterator[bytes]:
    yield _CHUNKED % _EVENTS
    for _ in range(100):
        yield b"100000\r\n%b\r\n" % (b"a" * MIB)
    yield b"0\r\n\r\n"


def _frames(frame: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count // 1000):
        yield frame * 1000


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "chunks": lambda: iter((_CHUNKED % b"", b"1\r\na\r\n" * MIB, b"0\r\n\r\n")),
    "events": lambda: iter((_CHUNKED % _EVENTS, b"7\r\ndata:\n\n\r\n" * 200_000, b"0\r\n\r\n")),
    "line": _line,
    "headers": lambda: iter((b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * 200_000)),
    "trailers": lambda: iter((_CHUNKED % b"", b"0\r\n", b"a:\r\n" * 200_000)),
    "interim": lambda: iter((b"HTTP/1.1 103 Early\r\n\r\n" * 100_000,)),
    "bomb": _gzip_bomb,
    "models": lambda: iter((_whole(b'{"data":[' + b'{"id":""},' * MIB + b"{}]}"),)),
}
SOCKETS: dict[str, Callable[[], Iterator[bytes]]] = {
    "socket": lambda: iter(()),
    "socket-pings": lambda: _frames(b"\x89\0", 100_000),
    "socket-messages": lambda: _frames(b"\x82\1a", 100_000),
    "socket-fragments": lambda: iter((b"\1\0", b"\0\1a" * 200_000)),
    "socket-text": lambda: iter(
        (b"\x81\x7f" + (16 * MIB).to_bytes(8, "big") + b"a" * (16 * MIB - 4) + "😀".encode(),)
    ),
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await _discard_body(head, reader)
            await _answer(head, reader, writer)
    writer.close()


async def _discard_body(head: bytes, reader: asyncio.StreamReader) -> None:
    left = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
        elif line.startswith(b"transfer-encoding:"):
            end = b""
            while not end.endswith(b"0\r\n\r\n"):
                end = end[-4:] + await reader.read(MIB)
    while left > 0:
        left -= len(await reader.read(min(left, MIB)))


async def _answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = head.split()[1].decode().partition("?")[0]
    name = path.rpartition("/")[2] or "bomb"
    if name in SOCKETS:
        (key,) = (
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
        )
        pieces = SOCKETS[name]()
    else:
        pieces = ANSWERS.get(name, lambda: iter((_whole(b"{}"),)))()
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    while name in SOCKETS and await reader.read(MIB):
        pass


async def main() -> None:
    # A log line of 8 MiB without an end, with a wide character.
    sys.stdout.write("a" * 8 * MIB + "😀")
    sys.stdout.flush()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
