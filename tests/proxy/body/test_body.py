from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamactl.core.asgi_types import Receive
from llamactl.core.turns import Turns
from proxy.body.body import ClientDisconnected, read_routed
from proxy.body.upload import Upload
from proxy.errors import RequestTooLarge
from tests.support.loop_stall import max_memory_bytes, measured_memory


def receiving(*messages: dict[str, Any]) -> Receive:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    return receive


async def test_body_in_one_message_is_returned_as_it_is() -> None:
    body = b'{"model": "a"}'
    read, _ = await read_routed(receiving({"type": "http.request", "body": body}), [], 100, Turns())
    assert read is body


async def test_body_in_several_messages_is_joined() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False},
    )
    assert await read_routed(receive, [], 4, Turns()) == (b"abcd", None)


async def test_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestTooLarge, match="max_body_mib"):
        await read_routed(receiving(), [(b"content-length", b"101")], 100, Turns())


async def test_body_without_a_length_is_refused_once_it_passes_the_limit() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
    )
    with pytest.raises(RequestTooLarge):
        await read_routed(receive, [], 100, Turns())


async def test_disconnect_in_the_middle_of_the_body_raises() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}
    )
    with pytest.raises(ClientDisconnected):
        await read_routed(receive, [], 100, Turns())


async def test_body_in_tiny_pieces_takes_no_more_memory_than_the_body() -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": b"%d" % (sent % 10), "more_body": sent < 2**19}

    with measured_memory() as memory:
        read, _ = await read_routed(receive, [], 2**20, Turns())
    assert isinstance(read, bytes)
    assert len(read) == 2**19
    assert memory.grown_bytes < max_memory_bytes(read)


async def test_upload_gathered_in_tiny_pieces_takes_no_more_memory_than_the_body() -> None:
    upload = Upload(b"beginning", [], limit=2**20)
    with measured_memory() as memory:
        for number in range(2**18):
            await upload.put(b"%d" % (number % 10), is_last=number == 2**18 - 1)
    assert memory.grown_bytes < 3 * 2**18 + 2**20
    taken = [piece async for piece in _taken(upload)]
    assert len(b"".join(taken)) == 2**18 + 9
    assert taken[0] == b"beginning"


async def _taken(upload: Upload) -> AsyncIterator[bytes]:
    while (piece := await upload.take()) is not None:
        yield piece
