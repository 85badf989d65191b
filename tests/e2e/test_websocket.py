"""A WebSocket through the whole of llamactl to a backend that it runs itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BACKEND = FAKE_BACKEND
PATH = "/api/v1/instances/talker/proxy/ws"


@pytest.fixture(scope="module")
def stack(shared_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    program = tmp_path_factory.mktemp("program") / "fake-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{BACKEND}" "$@"\n')
    program.chmod(0o755)
    options: dict[str, Any] = {"command_override": str(program), "auto_restart": True}
    shared_stack.create("talker", {"model": "fake"}, **options)
    yield shared_stack
    shared_stack.clear()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def start(stack: Stack) -> None:
    stack.call("POST", "/api/v1/instances/talker/start")
    stack.until_status("talker", "running")


def key(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.management_key}"}


async def status_of(client: aiohttp.ClientSession, url: str, **headers: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.ws_connect(url, headers=headers)
    return refusal.value.status


async def test_stopped_instance_refuses_and_stays_stopped(
    stack: Stack, client: aiohttp.ClientSession
) -> None:
    stack.call("POST", "/api/v1/instances/talker/stop")
    stack.until_status("talker", "stopped")
    assert await status_of(client, stack.url + PATH, **key(stack)) == 503
    assert stack.instance("talker")["status"] == "stopped"


async def test_every_refusal_has_its_status(stack: Stack, client: aiohttp.ClientSession) -> None:
    start(stack)
    inference_key = await asyncio.to_thread(stack.new_key)
    assert await status_of(client, stack.url + PATH) == 401
    bearer = f"Bearer {inference_key}"
    assert await status_of(client, stack.url + PATH, Authorization=bearer) == 401
    assert await status_of(client, f"{stack.url}{PATH}-not", **key(stack)) == 404
    assert await status_of(client, f"{stack.url}{PATH.replace('talker', 'x')}", **key(stack)) == 404
    for path in ("/", "/admin/", "/api/v1/instances", "/v1/realtime", "/nowhere"):
        assert await status_of(client, stack.url + path, **key(stack)) == 404


async def test_messages_and_close_codes_go_both_ways(
    stack: Stack, client: aiohttp.ClientSession
) -> None:
    start(stack)
    url = f"{stack.url}{PATH}?api_key={stack.management_key}"
    async with client.ws_connect(url, max_msg_size=0) as connection:
        await connection.send_str("héllo")
        assert await connection.receive_str(timeout=10) == "héllo"
        await connection.send_bytes(bytes(2**20))
        assert await connection.receive_bytes(timeout=10) == bytes(2**20)
        await connection.send_str("close 4242")
        closing = await connection.receive(timeout=10)
        assert (closing.data, closing.extra) == (4242, "as you like it")


async def test_connection_that_breaks_lets_the_instance_stop(
    stack: Stack, client: aiohttp.ClientSession
) -> None:
    """It should not count as in flight any more: a drain would wait for it."""
    start(stack)
    connection = await client.ws_connect(stack.url + PATH, headers=key(stack))
    await connection.send_str("hello")
    await connection.receive_str(timeout=10)
    transport = connection._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    transport.abort()
    await connection.close()
    await asyncio.to_thread(stack.call, "POST", "/api/v1/instances/talker/stop")
    await asyncio.to_thread(stack.until_status, "talker", "stopped", 20)


async def test_backend_that_is_killed_closes_the_client(
    stack: Stack, client: aiohttp.ClientSession
) -> None:
    start(stack)
    async with client.ws_connect(stack.url + PATH, headers=key(stack)) as connection:
        await connection.send_str("hello")
        await connection.receive_str(timeout=10)
        backend = until(lambda: stack.backends("talker"), "a process", seconds=10)[0]
        backend.kill()
        closing = await connection.receive(timeout=10)
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1011)


async def test_nothing_of_it_is_an_error_in_the_log(stack: Stack) -> None:
    """The last one: of all that happened here."""
    output = stack.output.read_text()
    assert "Traceback" not in output
    assert "Exception in ASGI" not in output
    assert "without completing handshake" not in output
    # Once, in the banner.
    assert output.count(stack.management_key) == 1
