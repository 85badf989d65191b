"""Delivery of llama-server's web UI, unpacked for clients that do not accept gzip.

llama-server has the files packed with gzip and answers 415 to a client that does not accept gzip.
So llama-server is always asked for gzip, and a client without gzip gets the file unpacked here.

llama-server is asked without its key: a path that needs the key stays closed, even if
``proxy.routes.llama_cpp`` took it for a file of the web UI.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from llamactl.core.asgi_types import Message, Send
from proxy.headers import Pairs, accepts_gzip, to_backend

_AS_GZIP_FILE = 16 + zlib.MAX_WBITS
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

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            is_packed = (b"content-encoding", b"gzip") in headers
            if is_packed and not self._takes_gzip:
                self._unpacker = zlib.decompressobj(_AS_GZIP_FILE)
                headers = [pair for pair in headers if pair[0] not in _CHANGED_BY_UNPACKING]
            if is_packed:
                headers = [*headers, (b"vary", b"Accept-Encoding")]
            message = {**message, "headers": headers}
        elif self._unpacker is not None:
            message = {**message, "body": self._unpacker.decompress(message.get("body", b""))}
        await self._send(message)
