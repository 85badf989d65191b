"""Input of a client in parts: uvicorn's HTTP protocol with bounded work in one turn of the loop.

uvicorn parses all that it gets at once. 256,000 bytes may be 43,000 chunks of one byte, 64,000
headers or 9,000 pipelined requests, each of them a call or a request of 4 KB.
"""

from __future__ import annotations

from enum import Enum, auto

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llamactl.core.errors import LlamactlError
from llamactl.core.headers import header
from llamactl.core.parted_input import PartedInput
from llamactl.server.web.disconnect_watch import WatchedTransport
from llamactl.server.web.errors import HeadTooLarge
from llamactl.server.web.head import MAX_HEADERS

PART_BYTES = 8 * 1024
"""The input that is parsed at once: up to 2 ms for chunks or requests of a few bytes each."""


TRAILERS = [(b"", b"")] * MAX_HEADERS
"""In place of the headers behind the head: a full list, so that one check finds both limits."""


class RequestPhase(Enum):
    """The part of a request that is being received."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class PartedProtocol(PartedInput, HttpToolsProtocol):
    """The part of ``HttpProtocol`` that parses, and holds what is not parsed yet."""

    part_bytes = PART_BYTES

    _watched: WatchedTransport
    _phase: RequestPhase
    _body_bytes: int
    _refusal: LlamactlError | None

    def _held_transport(self) -> WatchedTransport:
        return self._watched

    def _has_ended(self) -> bool:
        return self._watched.is_closing() or self._watched.get_protocol() is not self

    def _body_bytes_due(self) -> int:
        if self._phase is not RequestPhase.BODY:
            return 0
        length = header(self.scope["headers"], b"content-length")
        return 0 if length is None else int(length) - self._body_bytes

    def _may_parse(self) -> bool:
        # A pipelined request takes a hundred times its bytes, so its successors wait as bytes.
        return not self.pipeline and not self.flow.read_paused

    def on_header(self, name: bytes, value: bytes) -> None:
        # As in uvicorn, except for the limit, and for trailers, which must not become headers: a
        # proxy in front of us has not checked them.
        headers = self.headers
        if len(headers) >= MAX_HEADERS:
            if headers is TRAILERS:
                return
            self._refusal = HeadTooLarge(f"a request must have at most {MAX_HEADERS} headers")
            raise self._refusal
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))
