"""The time a backend takes to notice that all clients of its streams have disconnected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from bench.quantiles import percentile

NOTICE_SECONDS = 10.0
"""A disconnect that the backend has not noticed by then counts as unnoticed."""

POLL_SECONDS = 0.1
"""The backend's own clock takes the times, so this interval does not limit their precision."""

ANSWER_SECONDS = 30.0
QUESTION = b"GET /streams HTTP/1.1\r\nHost: backend\r\n\r\n"
LENGTH_FIELD = b"\r\nContent-Length: "


@dataclass(frozen=True)
class Disconnects:
    """The backend's account of a disconnect of all clients.

    `open_before` counts the streams before the disconnect; `gone_after` has the seconds until the
    backend noticed, in ascending order, for each noticed stream.
    """

    open_before: int
    gone_after: tuple[float, ...]

    @property
    def unnoticed(self) -> int:
        """Streams whose disconnect the backend did not notice, or that ended before."""
        return max(0, self.open_before - len(self.gone_after))

    def figures(self) -> dict[str, float]:
        """Milliseconds; an unnoticed disconnect counts as `NOTICE_SECONDS`."""
        seconds = [*self.gone_after, *[NOTICE_SECONDS] * self.unnoticed]
        return {
            "gone_last_ms": percentile(seconds, 100) * 1e3,
            "gone_p50_ms": percentile(seconds, 50) * 1e3,
            "streams_unnoticed": self.unnoticed,
        }


async def measure_disconnects(
    backend_url: str, disconnect: Callable[[], None], *, notice_seconds: float = NOTICE_SECONDS
) -> Disconnects:
    """Disconnect all clients, and wait until the backend has noticed the last one.

    The backend is asked directly: a proxy is busy with the disconnects. Raises OSError when the
    backend does not answer.
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
    """Ask for the number of open streams, and for the times of the disconnects."""
    writer.write(QUESTION)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(LENGTH_FIELD)[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError(
            "the backend closed the connection instead of listing its streams"
        ) from error
    document = json.loads(body)
    return document["open"], document["disconnected_at"]
