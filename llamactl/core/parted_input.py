"""Input in parts: bounded parsing between two passes of the event loop.

A parser calls back for each chunk, header, pipelined request or frame, and these may have a few
bytes each. uvloop reads 256,000 bytes at once, and libuv up to 32 times in a row: 43,000 chunks of
one byte, or half a second of WebSocket pings. So input above a few KiB is held and parsed in parts,
in the turns that all connections of the event loop share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ClassVar, Protocol, cast
from weakref import WeakKeyDictionary

from llamactl.core.turns import Turns

logger = logging.getLogger(__name__)


class HeldTransport(Protocol):
    """The transport of held input."""

    on_resume: Callable[[], None] | None
    """Called when the application resumes reading while input is held."""

    def is_closing(self) -> bool:
        """Whether the rest of the input is of no use."""

    def hold_reading(self) -> None:
        """Read nothing, even if the application resumes reading."""

    def release_reading(self) -> None:
        """Read again, unless the application has paused reading."""

    def abort(self) -> None:
        """Close the connection at once."""


class PartedInput:
    """Mixin of a protocol that parses its input in parts."""

    part_bytes: ClassVar[int]
    """The input that is parsed at once; up to 4 ms for the smallest elements."""

    _held: memoryview | None = None
    """Input that is not parsed yet. Reading is paused meanwhile."""
    _is_queued = False

    def _parse(self, data: bytes) -> None:
        """Parse a part; of held input it is a memoryview, which parsers take like bytes."""
        raise NotImplementedError

    def _may_parse(self) -> bool:
        """Whether the connection takes input now; ``_go_on`` asks again."""
        raise NotImplementedError

    def _body_bytes_due(self) -> int:
        """The bytes that are due of a body with a Content-Length: they take one call."""
        return 0

    def _held_transport(self) -> HeldTransport:
        """The transport, which may be changed by a part."""
        raise NotImplementedError

    def _has_ended(self) -> bool:
        """Whether the rest of the input is of no use, after a part."""
        return self._held_transport().is_closing()

    def _parse_in_parts(self, data: bytes) -> None:
        """Parse the input of one call of the parser at once, and hold the rest for its turns."""
        if self._may_parse() and len(data) > self._body_bytes_due():
            self._parse(data[: self.part_bytes])
            data = cast(bytes, memoryview(data)[self.part_bytes :])
            if self._has_ended():
                return
        if self._may_parse() and len(data) <= self._body_bytes_due():
            self._parse(data)
            return
        self._held = memoryview(data)
        transport = self._held_transport()
        transport.on_resume = self._go_on
        transport.hold_reading()
        self._go_on()

    def _go_on(self) -> None:
        """Queue held input, if there is any and it is not queued."""
        if self._held is not None and not self._is_queued:
            self._is_queued = True
            _turns().add(self._parse_part)

    def _drop_held(self) -> None:
        """Forget held input."""
        if self._held is not None:
            self._held = None
            self._held_transport().on_resume = None

    def _parse_part(self) -> bool:
        """Parse one part in a turn; returns whether the next part is due."""
        held = self._held
        if held is None or not self._may_parse():
            self._is_queued = False
            return False
        transport = self._held_transport()
        self._held = held[self.part_bytes :]
        try:
            self._parse(cast(bytes, held[: self.part_bytes]))
        except Exception:
            logger.exception("a connection is closed, because its input could not be parsed")
            self._drop_held()
            transport.abort()
        if self._held and not transport.is_closing():
            return True
        self._is_queued = False
        self._drop_held()
        transport.release_reading()
        return False


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def _turns() -> Turns:
    loop = asyncio.get_running_loop()
    turns = _of_loop.get(loop)
    if turns is None:
        turns = _of_loop[loop] = Turns()
    return turns
