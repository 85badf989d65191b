"""Is a client still there, from whom we read nothing? The system knows, and is asked.

While an application takes no more of a request, or of a WebSocket, uvicorn stops reading, and the
end of the connection is behind what was not read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from llamactl.server.web.write_coalescing import Coalescing

LOOK_SECONDS = 0.5
"""Who has been waiting for that long is looked at; so a client is missed within twice of it."""

# Linux, include/net/tcp_states.h: the first byte of TCP_INFO.
_CLOSE, _CLOSE_WAIT = 7, 8


class Watched(Coalescing):
    """A transport that aborts itself where the client leaves while reading is paused.

    A client that has said that it will send no more, and one whose connection is reset, count as
    gone, as they do where we read: also if all that was asked of us came before, and is still in
    the system's buffer.

    An end that the client's system can't send is no end yet: where our buffer is full, it comes
    after what is to come before. Only an answer to what we send shows then that nobody is there,
    which is what ``knock`` is for. HTTP has nothing to send before an answer (clients of Node.js
    break off at a 100 that they did not ask for), so there it takes a reset, or a reader.

    One timer at most, and none as long as nothing is paused: a WebSocket pauses at each message.
    """

    knock: Callable[[], None] | None = None
    """Sends something that asks for nothing, where the protocol has such a thing."""

    _pauses = 0
    _is_paused = False
    _will_look = False

    def pause_reading(self) -> None:
        self._transport.pause_reading()
        self._is_paused = True
        self._pauses += 1
        if not self._will_look:
            self._look_later()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._transport.resume_reading()

    def _look_later(self) -> None:
        self._will_look = True
        self._loop.call_later(LOOK_SECONDS, self._look, self._pauses)

    def _look(self, pauses_before: int) -> None:
        self._will_look = False
        if not self._is_paused or self.is_closing():
            return
        # One that is paused now and then is read to its end soon.
        if self._pauses == pauses_before:
            if self._has_left():
                self.abort()
                return
            if self.knock is not None:
                self.knock()
        self._look_later()

    def _has_left(self) -> bool:
        connection = self.get_extra_info("socket")
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (_CLOSE, _CLOSE_WAIT)
