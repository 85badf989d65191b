"""Where does an HTTP/1.1 response end, found as cheaply as a load generator must."""

from __future__ import annotations

from typing import Final

LENGTH_FIELD: Final = b"\r\ncontent-length:"
CHUNKED_FIELD: Final = b"\r\ntransfer-encoding: chunked"
# No payload of ours holds CR LF CR LF, so these bytes end a chunked response and nothing else.
LAST_CHUNK: Final = b"0\r\n\r\n"


class ResponseReader:
    """Follows one response at a time; `reset()` before the next one.

    `status` is the HTTP status, 0 until the head is complete. A response that has neither a
    length nor chunks ends with its connection, and `feed` never calls it complete.
    """

    __slots__ = ("_head", "_is_chunked", "_left", "_tail", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the response before this one."""
        self.status = 0
        self._head = b""
        self._tail = b""
        self._left = -1
        self._is_chunked = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of the response; true once it is complete."""
        if self.status == 0:
            received = self._head + data if self._head else data
            head_end = received.find(b"\r\n\r\n")
            if head_end < 0:
                self._head = received
                return False
            data = received[head_end + 4 :]
            self._read_head(received[: head_end + 2])
        if self._is_chunked:
            if len(data) < len(LAST_CHUNK):
                self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
                return self._tail == LAST_CHUNK
            self._tail = data[-len(LAST_CHUNK) :]
            return self._tail == LAST_CHUNK
        if self._left < 0:
            return False
        self._left -= len(data)
        return self._left <= 0

    def _read_head(self, head: bytes) -> None:
        self.status = int(head[9:12])
        fields = head.lower()
        at = fields.find(LENGTH_FIELD)
        if at >= 0:
            at += len(LENGTH_FIELD)
            self._left = int(fields[at : fields.index(b"\r\n", at)])
        else:
            self._is_chunked = CHUNKED_FIELD in fields
