"""Disconnect detection for connections whose reading is paused.

While an application takes no more of a request's body, or of a WebSocket's messages, uvicorn pauses
reading. The end of the connection then lies behind unread bytes, so the state of the TCP connection
is read from the kernel instead.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from llamactl.server.web.write_timeout import WriteTimeoutTransport

CHECK_SECONDS = 0.5
"""Interval of the checks. A pause is checked once it has lasted for one interval, so a disconnect
is detected within two."""

# Linux, include/net/tcp_states.h: the first byte of TCP_INFO.
_CLOSE, _CLOSE_WAIT = 7, 8


class WatchedTransport(WriteTimeoutTransport):
    """A transport that aborts itself when the client disconnects while reading is paused.

    A half-closed connection and a reset one count as disconnected, as they do while reading is not
    paused, even if the whole request is already in the kernel's buffer.

    A client's FIN can't arrive while our receive buffer is full: the kernel sends it behind the
    bytes that precede it. Only a reply to something that we send then shows that the peer is gone;
    ``send_probe`` exists for that. HTTP has nothing to send before a response (Node.js clients
    abort on a 100 that they did not request), so an HTTP disconnect behind a full buffer is
    detected by a reset, or once reading resumes.

    There is one timer at most, and none while nothing is paused: a WebSocket pauses reading at each
    message.
    """

    send_probe: Callable[[], None] | None = None
    """Sends a message that needs no reply, where the protocol has one."""

    on_lost: Callable[[], None] | None = None
    """Called when the connection of a WebSocket is lost."""

    on_resume: Callable[[], None] | None = None
    """Called when the application resumes reading while input is held."""

    _earlier_pauses_seconds = 0.0
    _paused_at = 0.0
    _pauses = 0
    _is_paused = False
    """By the application, or for held input."""
    _is_paused_by_application = False
    _is_held = False
    _is_check_scheduled = False

    def pause_reading(self) -> None:
        self._is_paused_by_application = True
        self._pause()

    def resume_reading(self) -> None:
        self._is_paused_by_application = False
        if not self._is_held:
            self._resume()
        elif self.on_resume is not None:
            self.on_resume()

    def hold_reading(self) -> None:
        """Read nothing until ``release_reading``, even if the application resumes reading."""
        self._is_held = True
        self._pause()

    def release_reading(self) -> None:
        """Read again, unless the application has paused reading."""
        self._is_held = False
        if not self._is_paused_by_application and not self.is_closing():
            self._resume()

    def _pause(self) -> None:
        self._transport.pause_reading()
        if not self._is_paused:
            self._paused_at = self._loop.time()
        self._is_paused = True
        self._pauses += 1
        if not self._is_check_scheduled:
            self._schedule_check()

    def _resume(self) -> None:
        self._earlier_pauses_seconds = self.paused_seconds
        self._is_paused = False
        self._transport.resume_reading()

    @property
    def paused_seconds(self) -> float:
        """For how long reading has been paused in all."""
        pause = self._loop.time() - self._paused_at if self._is_paused else 0.0
        return self._earlier_pauses_seconds + pause

    def _schedule_check(self) -> None:
        self._is_check_scheduled = True
        self._loop.call_later(CHECK_SECONDS, self._check, self._pauses)

    def _check(self, pauses_before: int) -> None:
        self._is_check_scheduled = False
        if not self._is_paused or self.is_closing():
            return
        # A newer pause is too short to check: reading may resume, and meet the end, by itself.
        if self._pauses == pauses_before:
            if self._is_disconnected():
                self.abort()
                return
            if self.send_probe is not None:
                self.send_probe()
        self._schedule_check()

    def _is_disconnected(self) -> bool:
        connection = self.get_extra_info("socket")
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (_CLOSE, _CLOSE_WAIT)
