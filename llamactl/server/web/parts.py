"""Input of a client in parts: uvicorn's HTTP protocol with bounded work in one turn of the loop.

uvicorn parses all that it gets at once. 256,000 bytes may be 43,000 chunks of one byte, 64,000
headers or 9,000 pipelined requests, each of them a call or a request of 4 KB.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llamactl.core.errors import LlamactlError
from llamactl.core.parsing_turns import HeldInput
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


class PartedProtocol(HttpToolsProtocol):
    """The part of ``HttpProtocol`` that parses, and holds what is not parsed yet."""

    _watched: WatchedTransport
    _phase: RequestPhase
    _body_bytes: int
    _refusal: LlamactlError | None
    _held: HeldInput | None = None

    def _parse(self, data: bytes) -> None:
        """Parse a part."""
        raise NotImplementedError

    def _parse_in_parts(self, data: bytes) -> None:
        """Parse at once what takes one call of the parser's, and hold the rest for its turns."""
        if not self.pipeline and not self._is_in_body(len(data)):
            self._parse(data[:PART_BYTES])
            data = cast(bytes, memoryview(data)[PART_BYTES:])
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if not self.pipeline and self._is_in_body(len(data)):
            self._parse(data)
            return
        self._held = HeldInput(
            data,
            self._watched,
            part_bytes=PART_BYTES,
            parse=self._parse,
            may_parse=self._may_parse,
            on_end=self._drop_held,
        )
        self._watched.on_resume = self._held.go_on

    def _is_in_body(self, size: int) -> bool:
        """Whether the next bytes are of a body with a Content-Length, all of them."""
        if self._phase is RequestPhase.BODY:
            for name, value in self.scope["headers"]:
                if name == b"content-length":
                    return self._body_bytes + size <= int(value)
        return False

    def _may_parse(self) -> bool:
        # A pipelined request takes a hundred times its bytes, so its successors wait as bytes.
        return not self.pipeline and not self.flow.read_paused

    def _drop_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._watched.on_resume = None
            held.drop()

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
