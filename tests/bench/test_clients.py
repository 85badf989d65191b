"""The simulated clients: when is a request due, and from when is its answer timed?"""

from __future__ import annotations

import asyncio
from time import perf_counter

from bench.clients import Client, PacedClient, StreamClient, Tally

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


def ignore(_client: Client) -> None:
    pass


async def test_an_answer_that_comes_late_is_timed_from_when_its_request_was_due() -> None:
    tally = Tally()
    tally.is_open = True
    transport = FakeTransport()
    # It should have begun a second ago, and asked ten times since.
    client = PacedClient(b"ask", tally, ignore, perf_counter() - 1.0, interval=0.1)
    client.connection_made(transport)
    for _ in range(5):
        client.data_received(ANSWER)
    assert transport.written == [b"ask"] * 6
    slowest = list(tally.latencies)
    assert slowest[0] >= 1.0
    assert slowest == sorted(slowest, reverse=True)
    assert slowest[4] >= 0.6


async def test_a_paced_client_sends_nothing_before_it_is_due() -> None:
    transport = FakeTransport()
    client = PacedClient(b"ask", Tally(), ignore, perf_counter() - 0.001, interval=1000.0)
    client.connection_made(transport)
    client.data_received(ANSWER)
    await asyncio.sleep(0.01)
    assert transport.written == [b"ask"]


async def test_a_held_stream_counts_its_first_event_before_the_window_opens() -> None:
    tally = Tally()
    client = StreamClient(
        b"ask", tally, ignore, perf_counter(), tokens=10, interval=1.0, is_held=True
    )
    client.connection_made(FakeTransport())
    assert not client.is_streaming
    client.data_received(STREAM_HEAD + b"9\r\ndata: x\n\n\r\n")
    assert client.is_streaming
    assert len(tally.latencies) == 1
    assert tally.events == 0


async def test_a_stream_that_is_refused_is_not_open() -> None:
    client = StreamClient(b"ask", Tally(), ignore, perf_counter(), tokens=1, interval=1.0)
    client.connection_made(FakeTransport())
    client.data_received(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nfull")
    assert not client.is_streaming
