"""Limits on open connections: which connection makes room for a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import pytest

from llamactl.core.authorised import set_authorised
from llamactl.server.web.connection_limits import RESERVED_FILES, ConnectionLimits
from llamactl.server.web.http import HttpProtocol
from tests.llamactl.server.web.test_http import Connect, answer, is_closed, serving


class Client:
    """A connection that waits for a request, or does not."""

    def __init__(self, *, is_waiting: bool = True) -> None:
        self.is_waiting, self.is_closed = is_waiting, False

    def close_waiting(self) -> bool:
        self.is_closed = self.is_waiting
        return self.is_waiting


def limits(max_connections: int) -> ConnectionLimits:
    return ConnectionLimits(2 * max_connections + RESERVED_FILES)


def admit(limits: ConnectionLimits, address: str, **client: bool) -> tuple[bool, Client]:
    connection = Client(**client)
    return limits.admit(connection, address, connection.close_waiting), connection


def test_the_oldest_waiting_connection_of_an_address_makes_room_for_its_next() -> None:
    table = limits(8)
    _, other = admit(table, "other")
    mine = [admit(table, "mine", is_waiting=number != 0)[1] for number in range(6)]
    assert admit(table, "mine")[0]
    assert [each.is_closed for each in mine] == [False, True, False, False, False, False]
    assert not other.is_closed
    assert len(table) == 7


def test_an_address_with_busy_connections_alone_gets_no_more() -> None:
    table = limits(8)
    for _ in range(6):
        assert admit(table, "mine", is_waiting=False)[0]
    assert not admit(table, "mine")[0]
    assert admit(table, "other")[0]


def test_waiting_connections_of_other_addresses_make_room_at_the_limit_of_the_process() -> None:
    table = limits(8)
    first = [admit(table, f"address {number}")[1] for number in range(8)]
    assert admit(table, "one more")[0]
    assert [each.is_closed for each in first] == [True] + [False] * 7
    assert len(table) == 8


def test_closed_connections_count_no_more() -> None:
    table = limits(8)
    for _ in range(20):
        is_admitted, connection = admit(table, "mine", is_waiting=False)
        assert is_admitted
        table.remove(connection)
        table.remove(connection)
    assert len(table) == 0
    assert not table._by_address


def test_a_websocket_does_not_make_room() -> None:
    table = limits(1)
    _, connection = admit(table, "mine")
    table.keep(connection)
    assert not admit(table, "mine")[0]
    assert not connection.is_closed


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer a GET; take the body of a POST to its end, at ``/v1`` with a valid key.

    The answer at ``/large`` has more bytes than a connection holds.
    """
    if scope["path"].startswith("/v1"):
        set_authorised({**scope})
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    body = bytes(2**26) if scope["path"].endswith("large") else b"ok"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """At most 4 connections, 3 from one address."""
    protocol = partial(HttpProtocol, limits=limits(4))
    async for each in serving(cast("type[HttpProtocol]", protocol), application):
        yield each


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_A_BODY = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo"


@pytest.mark.parametrize(
    "sent",
    [b"", GET, b"GET / HT", b"POST /admin/login/" + HALF_A_BODY],
    ids=["nothing", "idle", "half a head", "half a body"],
)
async def test_a_keyless_client_can_not_hold_all_connections(connect: Connect, sent: bytes) -> None:
    held = []
    for _ in range(5):
        reader, writer = await connect()
        writer.write(sent)
        if sent == GET:
            assert (await answer(reader))[1] == b"ok"
        held.append(reader)
        await asyncio.sleep(0.02)
    reader, writer = await connect()
    writer.write(GET)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
    for each in held[:3]:
        assert await is_closed(each)


async def test_an_upload_with_a_key_keeps_its_connection(connect: Connect) -> None:
    uploads = []
    for _ in range(3):
        reader, writer = await connect()
        writer.write(b"POST /v1" + HALF_A_BODY)
        uploads.append((reader, writer))
        await asyncio.sleep(0.02)
    reader, _ = await connect()
    line, body = await answer(reader)
    assert line == b"HTTP/1.1 503 Service Unavailable"
    assert b"too_many_connections" in body
    assert await is_closed(reader)
    for reader, writer in uploads:
        writer.write(b"dy")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize(("path", "is_kept"), [(b"/large", False), (b"/v1/large", True)])
async def test_a_response_that_is_not_read_keeps_its_connection_only_with_a_key(
    connect: Connect, path: bytes, is_kept: bool
) -> None:
    slow = []
    for _ in range(3):
        reader, writer = await connect()
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")  # and at most two buffers of the body
        slow.append(reader)
    reader, writer = await connect()
    writer.write(GET)
    line, _ = await answer(reader)
    assert (b"503" in line) == is_kept


async def test_a_closed_connection_makes_room(connect: Connect) -> None:
    for _ in range(8):
        reader, writer = await connect()
        writer.write(b"POST /v1" + HALF_A_BODY + b"dy")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        writer.close()
        await writer.wait_closed()
