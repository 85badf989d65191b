"""Write timeout: the end of a connection while bytes wait and the client takes none.

A response that the client does not read holds its connection, its buffers and, if a backend is
still sending it, a slot of the backend. So does a closed connection with unsent bytes: the event
loop's transport closes a socket only when all of them are in the kernel.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

from llamactl.server.web.write_coalescing import CoalescingTransport

WRITE_SECONDS = 60.0
"""nginx's default of ``send_timeout``. It starts anew with each byte that the client's kernel
acknowledges, so a slow client keeps its connection. The kernels of both sides buffer megabytes
(tcp_wmem and tcp_rmem) before a byte waits here, so a stream of tokens rarely comes that far."""

CHECKS = 6
"""Checks within the timeout; the last one may come one interval late."""

# SO_LINGER with a timeout of 0: a close discards unsent bytes and sends a reset.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class WriteTimeoutTransport(CoalescingTransport):
    """A transport that ends its connection while bytes wait and the client takes none.

    No timer runs while the client takes what is sent to it.
    """

    write_seconds = WRITE_SECONDS

    _is_write_check_scheduled = False
    _waiting_bytes = 0
    _taken_at = 0.0

    def watch_writes(self) -> None:
        """Check that the client takes bytes, until none wait here.

        To be called when writing is paused, because more than 64 KiB wait.
        """
        if not self._is_write_check_scheduled:
            self._waiting_bytes = sys.maxsize
            self._check_writes()

    def close(self) -> None:
        super().close()
        if self.get_write_buffer_size():
            self.watch_writes()

    def _check_writes(self) -> None:
        self._is_write_check_scheduled = False
        if not self.get_write_buffer_size():
            return
        try:
            waiting_bytes = self._bytes_not_taken()
        except OSError:  # closed in this turn of the loop
            return
        now = self._loop.time()
        if waiting_bytes < self._waiting_bytes:
            self._taken_at = now
        self._waiting_bytes = waiting_bytes
        if now - self._taken_at >= self.write_seconds:
            self._reset()
            return
        self._is_write_check_scheduled = True
        self._loop.call_later(self.write_seconds / CHECKS, self._check_writes)

    def _bytes_not_taken(self) -> int:
        """The bytes that wait here or, not acknowledged by the client, in the kernel."""
        connection = self.get_extra_info("socket")
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        size: int = self.get_write_buffer_size() + struct.unpack("i", queued)[0]
        return size

    def _reset(self) -> None:
        """End the connection with a reset: the kernel would keep its unsent bytes for minutes."""
        connection = self.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()
