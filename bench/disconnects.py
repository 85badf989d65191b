"""How long does a backend keep the streams of clients that have all left at once?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from bench.quantiles import percentile

NOTICE_SECONDS = 10.0
"""A stream that the backend still has after so long counts as one that it never noticed."""

POLL_SECONDS = 0.1
"""It is the backend's own clock that tells, so this only says how soon we know."""

ANSWER_SECONDS = 30.0
QUESTION = b"GET /streams HTTP/1.1\r\nHost: backend\r\n\r\n"
LENGTH_FIELD = b"\r\nContent-Length: "


@dataclass(frozen=True)
class Disconnects:
    """What the backend saw when all clients left.

    `open_before` are the streams that it had; `gone_after` says for each that it noticed, in
    ascending order, after how many seconds.
    """

    open_before: int
    gone_after: tuple[float, ...]

    @property
    def unnoticed(self) -> int:
        """Streams that it had all the time, or that came to their end."""
        return max(0, self.open_before - len(self.gone_after))

    def figures(self) -> dict[str, float]:
        """Milliseconds; what was never noticed counts as the longest time that we wait."""
        seconds = [*self.gone_after, *[NOTICE_SECONDS] * self.unnoticed]
        return {
            "gone_last_ms": percentile(seconds, 100) * 1e3,
            "gone_p50_ms": percentile(seconds, 50) * 1e3,
            "streams_unnoticed": self.unnoticed,
        }


async def measure_disconnects(
    backend_url: str, disconnect: Callable[[], None], *, notice_seconds: float = NOTICE_SECONDS
) -> Disconnects:
    """Let all clients hang up, and wait until the backend has noticed the last of them.

    The backend is asked directly: a proxy is busy with those who leave. Raises OSError when it
    does not answer.
    """
    url = urlsplit(backend_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        open_before, _ = await _ask(reader, writer)
        disconnected_at = monotonic()
        disconnect()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            still_open, noticed_at = await _ask(reader, writer)
            if still_open == 0 or monotonic() - disconnected_at > notice_seconds:
                break
    finally:
        writer.close()
    gone_after = sorted(at - disconnected_at for at in noticed_at if at >= disconnected_at)
    return Disconnects(open_before, tuple(gone_after))


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, list[float]]:
    """How many streams it has, and when clients left theirs."""
    writer.write(QUESTION)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(LENGTH_FIELD)[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the backend hung up on a question about its streams") from error
    document = json.loads(body)
    return document["open"], document["disconnected_at"]
