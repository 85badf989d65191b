"""Responses to HTTP/1.1 clients: the same bytes and errors as uvicorn's own."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from llamactl.server.web.http_1_1 import Http11Cycle

DATE = (b"date", b"Tue, 01 Dec 2026 00:00:00 GMT")
LENGTH = (b"content-length", b"5")
HELLO = ({"body": b"hello"},)


class Recorder(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


def cycle_of(
    kind: type[RequestResponseCycle], method: str, *, keep_alive: bool
) -> tuple[RequestResponseCycle, Recorder, list[str]]:
    transport, ends = Recorder(), []
    cycle = kind(
        scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
        transport=transport,
        flow=FlowControl(transport),
        logger=None,  # type: ignore[arg-type]
        access_logger=None,  # type: ignore[arg-type]
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: ends.append("end"),
    )
    return cycle, transport, ends


async def sent(
    kind: type[RequestResponseCycle],
    status: int,
    headers: list[tuple[bytes, bytes]],
    pieces: tuple[dict[str, Any], ...],
    method: str = "POST",
    *,
    keep_alive: bool = True,
) -> tuple[bytes, bool, int, str]:
    """What the client gets, whether the connection closes, the ends reported, and the error."""
    cycle, transport, ends = cycle_of(kind, method, keep_alive=keep_alive)
    error = ""
    try:
        await cycle.send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await cycle.send(cast("Any", {"type": "http.response.body", **piece}))
    except RuntimeError as raised:
        error = str(raised)
    return b"".join(transport.written), transport.is_closed, len(ends), error


@pytest.mark.parametrize(
    ("status", "headers", "pieces"),
    [
        (200, [LENGTH], HELLO),
        (200, [(b"Content-Length", b"5"), (b"X-Name", b"v")], HELLO),
        (200, [LENGTH], ({"body": b"he", "more_body": True}, {"body": b"llo"})),
        (200, [], ({"body": b"he", "more_body": True}, {"body": b"llo"})),
        (200, [], ({"body": b"hello", "more_body": True}, {"body": b""})),
        (200, [], ({},)),
        (200, [LENGTH], ({"body": b"hello!"},)),
        (200, [LENGTH], ({"body": b"hell"},)),
        (200, [LENGTH], (*HELLO, *HELLO)),
        (200, [LENGTH, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], HELLO),
        (200, [LENGTH, LENGTH], HELLO),
        (200, [LENGTH, (b"connection", b"close")], HELLO),
        (200, [LENGTH, (b"Connection", b"close")], HELLO),
        (200, [(b"transfer-encoding", b"chunked")], HELLO),
        (200, [(b"Transfer-Encoding", b"chunked")], HELLO),
        (204, [], ({},)),
        (304, [LENGTH], ({},)),
        (599, [LENGTH], HELLO),
        (200, [LENGTH, (b"x-tab", b"a\tb"), (b"x-high", b"\xff"), (b"x-empty", b"")], HELLO),
    ],
)
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_responses_are_those_of_uvicorn(
    status: int,
    headers: list[tuple[bytes, bytes]],
    pieces: tuple[dict[str, Any], ...],
    method: str,
    keep_alive: bool,
) -> None:
    ours = await sent(Http11Cycle, status, headers, pieces, method, keep_alive=keep_alive)
    assert ours == await sent(
        RequestResponseCycle, status, headers, pieces, method, keep_alive=keep_alive
    )


@pytest.mark.parametrize(
    "header",
    [
        (b"x-name", b"value\r\nset-cookie: a=1"),
        (b"x-name", b"value\nset-cookie: a=1"),
        (b"x-name", b"value\rset-cookie: a=1"),
        (b"x-name", b"\x00"),
        (b"x-name", b"\x7f"),
        (b"x-name\r\nset-cookie", b"a=1"),
        (b"x name", b"value"),
        (b"x:name", b"value"),
        (b"", b"value\r\n"),
    ],
)
async def test_a_header_that_would_split_the_response_is_refused(
    header: tuple[bytes, bytes],
) -> None:
    written, _, ends, error = await sent(Http11Cycle, 200, [LENGTH, header], HELLO)
    assert (written, ends) == (b"", 0)
    assert error.startswith("Invalid HTTP header")


async def test_a_paused_client_is_waited_for() -> None:
    cycle, transport, _ = cycle_of(Http11Cycle, "POST", keep_alive=True)
    await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    cycle.flow.pause_writing()
    piece = asyncio.ensure_future(
        cycle.send({"type": "http.response.body", "body": b"hello", "more_body": True})
    )
    await asyncio.sleep(0)
    assert not piece.done()
    cycle.flow.resume_writing()
    await piece
    assert transport.written[-1] == b"5\r\nhello\r\n"


async def test_nothing_is_sent_to_a_disconnected_client() -> None:
    cycle, transport, _ = cycle_of(Http11Cycle, "POST", keep_alive=True)
    cycle.disconnected = True
    await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    assert transport.written == []
