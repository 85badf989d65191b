"""A kept connection that the backend closes just when a request comes: none may fail."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.proxy.conftest import TableGateway, make_target
from tests.proxy.sockets.conftest import Connect
from tests.support.wire import OK, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
IDLE_SECONDS = 0.05


async def closes_when_idle(session: Session) -> None:
    """As cpp-httplib and uvicorn do after 5 s, a hundred times sooner."""
    seconds: float | None = None
    try:
        while True:
            async with asyncio.timeout(seconds):
                await session.request()
            await session.send(OK)
            seconds = IDLE_SECONDS
    except TimeoutError:
        return


async def closes_unannounced(session: Session) -> None:
    """After a hundred requests, without saying so in the last answer."""
    for _ in range(100):
        await session.request()
        await session.send(OK)


async def hangs_up_on_the_next(session: Session) -> None:
    """Takes a second request, and closes without a word."""
    await session.request()
    await session.send(OK)
    await session.reader.readexactly(1)
    session.writer.transport.abort()


@pytest.mark.parametrize("script", [closes_when_idle, closes_unannounced, hangs_up_on_the_next])
async def test_request_on_a_connection_that_closes_is_answered(
    connect: Connect, backend: RawBackend, script: object
) -> None:
    backend.script = script  # type: ignore[assignment]
    chance = random.Random(1)
    pauses = (0.8, 1.1) if script is closes_when_idle else (0.0, 0.1)

    async def ask_often() -> list[int]:
        client = await connect()
        statuses = []
        for _ in range(20):
            client.post(CHAT, MODEL)
            statuses.append((await client.answer()).status)
            await asyncio.sleep(chance.uniform(*pauses) * IDLE_SECONDS)
        return statuses

    answers = await asyncio.gather(*(ask_often() for _ in range(50)))
    assert [status for statuses in answers for status in statuses] == [200] * 1000


async def test_models_of_a_router_are_listed_though_a_connection_closes(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    async def play(session: Session) -> None:
        while (await session.request()).first_line.startswith(b"POST"):
            await session.send(OK)
        if len(backend.requests) == 2 and backend.connections == 1:
            return
        models = b'{"data":[{"id":"a"}]}'
        await session.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(models), models)

    backend.script = play
    gateway.lay(make_target(backend.origin, served_model=None))
    client.post(CHAT, MODEL)
    assert (await client.answer()).status == 200
    client.ask(b"GET /v1/models")
    assert b'"demo/a"' in (await client.answer()).body
