"""How do the simulated clients behave: one request after another, or one stream after another."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from time import perf_counter
from typing import cast

from bench.framing import ResponseReader


class Tally:
    """The counts and latencies of all clients inside the measured window; times in seconds."""

    def __init__(self) -> None:
        self.is_open = False
        self.latencies = array("d")
        self.reads = 0
        self.events = 0
        self.delays = array("d")
        self.lateness = array("d")
        self.failures: dict[str, int] = {}

    def fail(self, what: str) -> None:
        """Count a request that went wrong; the failures of the warm-up count too."""
        self.failures[what] = self.failures.get(what, 0) + 1


class Client(asyncio.Protocol):
    """A connection that sends `request` whenever the answer to the one before is complete.

    `on_lost` is called when the connection ends while the client is still wanted.
    """

    def __init__(
        self, request: bytes, tally: Tally, on_lost: Callable[[Client], None], first_at: float
    ) -> None:
        self._request = request
        self._tally = tally
        self._on_lost = on_lost
        self._first_at = first_at
        self._reader = ResponseReader()
        self._is_stopped = False
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        wait = self._first_at - perf_counter()
        if wait <= 0:
            self._send()
        else:
            asyncio.get_running_loop().call_later(wait, self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_stopped:
            return
        self._is_stopped = True
        self._tally.fail("connection lost")
        self._on_lost(self)

    def stop(self) -> None:
        """Disconnect."""
        self._is_stopped = True
        self._transport.abort()

    def _send(self) -> None:
        if self._is_stopped:
            return
        self._reader.reset()
        self._sent_at = perf_counter()
        self._transport.write(self._request)


class RequestClient(Client):
    """Asks, waits for the whole answer, asks again; notes how long each answer took."""

    def data_received(self, data: bytes) -> None:
        if not self._reader.feed(data):
            return
        if self._reader.status != 200:
            self._tally.fail(f"status {self._reader.status}")
        elif self._tally.is_open:
            self._tally.latencies.append(perf_counter() - self._sent_at)
        self._send()


class PacedClient(RequestClient):
    """Asks every `interval` seconds, however long the answers take.

    One that waits for an answer can't send the next request when it is due, but the clock of that
    request starts then: so a server that stands still for a second spoils all the requests that
    were due in this second, as it would for real clients, and not the one that it had.
    """

    def __init__(
        self,
        request: bytes,
        tally: Tally,
        on_lost: Callable[[Client], None],
        first_at: float,
        *,
        interval: float,
    ) -> None:
        super().__init__(request, tally, on_lost, first_at)
        self._interval = interval
        self._due = first_at

    def _send(self) -> None:
        wait = self._due - perf_counter()
        if wait > 0:
            # A millisecond is the resolution of the loop's timers; less would make it spin.
            asyncio.get_running_loop().call_later(max(wait, 0.001), self._send_due, True)
        else:
            self._send_due(was_free=False)

    def _send_due(self, was_free: bool) -> None:
        super()._send()
        if was_free and self._tally.is_open:
            self._tally.lateness.append(self._sent_at - self._due)
        # The timer may be half a millisecond early.
        self._sent_at = min(self._sent_at, self._due)
        self._due += self._interval


class StreamClient(Client):
    """Reads one event stream after another.

    Counts events by their blank line, and notes for each how much later it came than the
    backend's schedule says: event k is due k * `interval` seconds after the request was sent.
    """

    def __init__(
        self,
        request: bytes,
        tally: Tally,
        on_lost: Callable[[Client], None],
        first_at: float,
        *,
        tokens: int,
        interval: float,
        is_held: bool = False,
    ) -> None:
        """`is_held`: the first event counts also before the window, when all streams begin."""
        super().__init__(request, tally, on_lost, first_at)
        self._is_held = is_held
        self._tokens = tokens
        self._interval = interval
        self._last_byte = b""
        self._seen = 0
        self.events_in_window = 0

    @property
    def is_streaming(self) -> bool:
        """Whether events come: a good status, at least one event, and the end not reached."""
        return not self._is_stopped and self._reader.status == 200 and self._seen > 0

    def _send(self) -> None:
        self._seen = 0
        self._last_byte = b""
        super()._send()

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        is_complete = self._reader.feed(data)
        count = data.count(b"\n\n")
        if self._last_byte == b"\n" and data.startswith(b"\n"):
            count += 1  # the blank line was cut in two
        self._last_byte = data[-1:]
        if count:
            self._note(now, count)
        if not is_complete:
            return
        if self._reader.status != 200:
            self._tally.fail(f"status {self._reader.status}")
        elif self._seen != self._tokens + 1:  # the tokens and [DONE]
            self._tally.fail(f"{self._seen} events instead of {self._tokens + 1}")
        self._send()

    def _note(self, now: float, count: int) -> None:
        tally = self._tally
        first = self._seen
        self._seen += count
        if first == 0 and (tally.is_open or self._is_held):
            tally.latencies.append(now - self._sent_at)
        if not tally.is_open:
            return
        tally.reads += 1
        tally.events += count
        self.events_in_window += count
        for index in range(first, min(self._seen, self._tokens)):
            tally.delays.append(now - self._sent_at - index * self._interval)
