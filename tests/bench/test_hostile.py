"""The inputs of ``bench.hostile``, and the stall of the event loop by their heads."""

from __future__ import annotations

from io import BytesIO
from itertools import chain
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest

from bench.hostile.inputs import found_heads, generated
from llamactl.server.web.http import HttpProtocol
from tests.llamactl.server.web.test_http import serving
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_stall


def test_each_run_sends_the_same_inputs() -> None:
    first = list(generated())
    assert len(first) == 300
    assert first == list(generated())


async def read_as_django(scope: Any, receive: Any, send: Any) -> None:
    """Parse on the event loop what Django parses of a head."""
    request = ASGIRequest(scope, BytesIO())
    _ = request.COOKIES
    try:
        request.get_host()
        _ = request.GET
    except SuspiciousOperation:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_no_head_stops_the_event_loop() -> None:
    heads = [
        each
        for each in chain(found_heads(), generated())
        if each.request.endswith(b"\r\n\r\n") and b"websocket" not in each.request
    ]
    async for connect in serving(HttpProtocol, read_as_django):
        for each in heads:
            reader, writer = await connect()
            async with measured_stall() as stall:
                writer.write(each.request)
                assert (await reader.readline()).startswith(b"HTTP/1.1 "), each.name
            writer.close()
            assert stall.seconds < MAX_STALL_SECONDS, (each.name, stall.seconds)
