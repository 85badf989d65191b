from __future__ import annotations

from typing import Any

import pytest

from llamactl.core.asgi_types import Receive
from proxy.body.body import ClientDisconnected, read_routed
from proxy.errors import RequestTooLarge


def receiving(*messages: dict[str, Any]) -> Receive:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    return receive


async def test_body_in_one_message_is_returned_as_it_is() -> None:
    body = b'{"model": "a"}'
    read, _ = await read_routed(receiving({"type": "http.request", "body": body}), [], 100)
    assert read is body


async def test_body_in_several_messages_is_joined() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False},
    )
    assert await read_routed(receive, [], 4) == (b"abcd", None)


async def test_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestTooLarge, match="max_body_mib"):
        await read_routed(receiving(), [(b"content-length", b"101")], 100)


async def test_body_without_a_length_is_refused_once_it_passes_the_limit() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
    )
    with pytest.raises(RequestTooLarge):
        await read_routed(receive, [], 100)


async def test_disconnect_in_the_middle_of_the_body_raises() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}
    )
    with pytest.raises(ClientDisconnected):
        await read_routed(receive, [], 100)
