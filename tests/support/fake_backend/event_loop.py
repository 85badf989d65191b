"""A small event loop on epoll: timers, and the part of asyncio's transport that is needed.

asyncio takes 25 to 35 ms of CPU to import, which is more than all the rest of a start; and the
benchmark wants a backend that costs next to nothing per request.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

READ_BYTES = 65536


class Handler(Protocol):
    """The receiving side of a transport, a subset of ``asyncio.Protocol``."""

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Timer:
    """A scheduled call; ``cancel()`` takes it back."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Transport:
    """One connection; bytes that the kernel does not take at once are kept and written later."""

    __slots__ = ("_is_closing", "_loop", "_unsent", "handler", "socket")

    def __init__(self, loop: EventLoop, connection: socket.socket) -> None:
        self.socket = connection
        self.handler: Handler
        self._loop = loop
        self._unsent = b""
        self._is_closing = False

    def write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # The loss of the connection is reported by the next read.
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.watch(self, select.EPOLLIN | select.EPOLLOUT)

    def close(self) -> None:
        """Close the connection once all data is written."""
        self._is_closing = True
        if not self._unsent:
            self._lose()

    def detach(self) -> socket.socket:
        """Give the socket away, in blocking mode."""
        self._loop.forget(self)
        self.socket.setblocking(True)
        return self.socket

    def on_readable(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.handler.data_received(data)
        else:
            self._lose()

    def on_writable(self) -> None:
        data, self._unsent = self._unsent, b""
        self._loop.watch(self, select.EPOLLIN)
        self.write(data)
        if self._is_closing and not self._unsent:
            self._lose()

    def _lose(self) -> None:
        self._loop.forget(self)
        self.socket.close()
        self.handler.connection_lost(None)


class EventLoop:
    """Serves one listening socket in one thread, and never ends."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._transports: dict[int, Transport] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()

    time = staticmethod(time.monotonic)

    def call_at(self, due: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        return self.call_at(0.0, callback)

    def watch(self, transport: Transport, events: int) -> None:
        descriptor = transport.socket.fileno()
        if descriptor in self._transports:
            self._epoll.modify(descriptor, events)

    def forget(self, transport: Transport) -> None:
        descriptor = transport.socket.fileno()
        if self._transports.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def serve_forever(
        self, listener: socket.socket, make_handler: Callable[[Transport], Handler]
    ) -> None:
        listener.setblocking(False)
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        while True:
            for descriptor, events in self._epoll.poll(self._run_timers()):
                transport = self._transports.get(descriptor)
                if transport is None:
                    self._accept(listener, make_handler)
                elif events & select.EPOLLOUT:
                    transport.on_writable()
                else:
                    transport.on_readable()

    def _accept(
        self, listener: socket.socket, make_handler: Callable[[Transport], Handler]
    ) -> None:
        try:
            connection, _address = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = Transport(self, connection)
        self._transports[connection.fileno()] = transport
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        transport.handler = make_handler(transport)

    def _run_timers(self) -> float:
        """Make the calls that are due; return the seconds until the next one, -1 without any."""
        timers = self._timers
        now = self.time()
        # Collected before the calls: a call may schedule another one at once.
        due = []
        while timers and timers[0][0] <= now:
            due.append(heappop(timers)[2])
        for timer in due:
            if timer.callback is not None:
                timer.callback()
        return max(0.0, timers[0][0] - self.time()) if timers else -1
