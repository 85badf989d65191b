"""Delivery of llama-server's web UI, unpacked for clients that do not accept gzip.

llama-server has the files packed with gzip and answers 415 to a client that does not accept gzip.
So llama-server is always asked for gzip, and a client without gzip gets the file unpacked here.

llama-server is asked without its key: a path that needs the key stays closed, even if
``proxy.routes.llama_cpp`` took it for a file of the web UI.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable

from llamactl.core.asgi_types import Message, Send
from proxy.headers import Pairs, accepts_gzip, to_backend
from proxy.upstream import BrokeOff

_AS_GZIP_FILE = 16 + zlib.MAX_WBITS
STEP_BYTES = 64 * 1024
MAX_UNPACKED_BYTES = 64 * 2**20
"""llama-server's whole page has about 6 MB."""
# A part of a packed file can't be unpacked, and the ETag is that of the packed file.
_CHANGED_BY_UNPACKING = frozenset(
    [b"content-encoding", b"content-length", b"etag", b"accept-ranges"]
)


def request_headers(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """The client's headers for llama-server, in a request for a file of the web UI."""
    pairs = to_backend(headers, None)
    pairs = [pair for pair in pairs if pair[0] not in (b"accept-encoding", b"range")]
    return [*pairs, (b"accept-encoding", b"gzip")]


def as_accepted(headers: Iterable[tuple[bytes, bytes]], send: Send) -> Send:
    """``send``, unpacking gzip if the client's headers do not accept gzip."""
    return Unpacking(send, client_takes_gzip=accepts_gzip(headers))


class Unpacking:
    """An ASGI ``send`` that unpacks gzip bodies, unless the client accepts gzip."""

    def __init__(self, send: Send, *, client_takes_gzip: bool) -> None:
        self._send = send
        self._takes_gzip = client_takes_gzip
        self._unpacker: zlib._Decompress | None = None
        self._has_begun = False
        """Whether a part of the body has come; HEAD has none."""
        self._unpacked_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            is_packed = (b"content-encoding", b"gzip") in headers
            if is_packed and not self._takes_gzip:
                self._unpacker = zlib.decompressobj(_AS_GZIP_FILE)
                headers = [pair for pair in headers if pair[0] not in _CHANGED_BY_UNPACKING]
            if is_packed:
                headers = [*headers, (b"vary", b"Accept-Encoding")]
            await self._send({**message, "headers": headers})
        elif self._unpacker is None:
            await self._send(message)
        else:
            await self._send_unpacked(message, self._unpacker)

    async def _send_unpacked(self, message: Message, unpacker: zlib._Decompress) -> None:
        """Send a piece of the body in steps, because 1 KB of gzip may hold 1 MB."""
        is_last = not message.get("more_body")
        rest = message.get("body", b"")
        self._has_begun |= bool(rest)
        while rest and not unpacker.eof:
            try:
                step = unpacker.decompress(rest, STEP_BYTES)
            except zlib.error as error:
                raise BrokeOff(f"the web UI is no gzip: {error}") from None
            rest = unpacker.unconsumed_tail
            self._unpacked_bytes += len(step)
            if self._unpacked_bytes > MAX_UNPACKED_BYTES:
                raise BrokeOff(f"a file of the web UI has more than {MAX_UNPACKED_BYTES} bytes")
            if step:
                await self._send({"type": "http.response.body", "body": step, "more_body": True})
            # A fast client's send does not give the loop back.
            await asyncio.sleep(0)
        if is_last:
            if self._has_begun and not unpacker.eof:
                raise BrokeOff("a file of the web UI breaks off")
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
