"""Lines of a log that grows, each with the position after it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from instances.logs.reader import LogReader, Position
from nodes.agent import LogLine

UNFINISHED_SECONDS = 1.0
"""Age at which an unfinished line is returned: the dots of a loading model, a prompt."""
LONGEST_LINE_BYTES = 64 * 1024
"""A line of 1 MiB with one emoji would take 12 MB as an event."""
BLOCK_BYTES = 64 * 1024
CUT_MARK = b" [cut: the line goes on]"

# A lone CR, as in a progress bar, ends a line, as it does in an event stream. A CR at the end of
# the text doesn't: it may be half of a CR LF.
_LINE_END = re.compile(rb"\r?\n|\r(?=[^\n])")


class LineReader:
    """Splits the text of a ``LogReader`` into lines.

    An unfinished line is returned after ``UNFINISHED_SECONDS``, its rest later as a line of its
    own. A line over ``LONGEST_LINE_BYTES`` is returned in marked pieces.
    """

    def __init__(self, reader: LogReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._unfinished = b""
        """The text after the last line end."""
        self._unfinished_since = 0.0
        self._is_continuation = False
        """Whether an earlier piece of the unfinished line was returned."""

    def read_lines(self) -> list[LogLine]:
        """Return the lines of the next block that completes one; empty if there is none yet.

        Raises OSError.
        """
        now = self._clock()
        while data := self._reader.read(BLOCK_BYTES):
            # No line yet: the line is longer than a block.
            if lines := self._split(data, now):
                return lines
        if self._unfinished and now - self._unfinished_since >= UNFINISHED_SECONDS:
            return self._take_unfinished(now)
        return []

    def close(self) -> None:
        self._reader.close()

    def _split(self, data: bytes, now: float) -> list[LogLine]:
        text = self._unfinished + data
        if not self._unfinished:
            self._unfinished_since = now
        end = self._reader.position
        lines: list[LogLine] = []
        begin = 0
        for match in _LINE_END.finditer(text):
            # A line end alone, after a piece that was returned already, makes no line.
            if match.start() > begin or not self._is_continuation:
                position = replace(end, offset=end.offset - (len(text) - match.end()))
                lines.append(_line(position, text[begin : match.start()]))
            self._is_continuation = False
            begin = match.end()
        if begin:
            self._unfinished_since = now
        self._unfinished = text[begin:]
        if len(self._unfinished) >= LONGEST_LINE_BYTES:
            lines += self._take_unfinished(now, mark=CUT_MARK)
        return lines

    def _take_unfinished(self, now: float, *, mark: bytes = b"") -> list[LogLine]:
        """Return the unfinished line as far as its characters are whole."""
        length = _whole_characters(self._unfinished)
        piece, self._unfinished = self._unfinished[:length], self._unfinished[length:]
        self._unfinished_since = now
        self._is_continuation = True
        if not piece:
            return []
        end = self._reader.position
        # max(): the first bytes of a split character may be in the file before.
        position = replace(end, offset=max(0, end.offset - len(self._unfinished)))
        return [_line(position, piece.removesuffix(b"\r") + mark)]


def _line(position: Position, line: bytes) -> LogLine:
    return LogLine(str(position), line.decode("utf-8", "replace").replace("\x00", "\ufffd"))


def _whole_characters(text: bytes) -> int:
    """Count the bytes of ``text`` without an incomplete UTF-8 character at its end."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(text) - back if back < needed else len(text)
        if byte < 0x80:
            break
    return len(text)
