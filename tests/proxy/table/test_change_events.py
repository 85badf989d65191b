"""The subscription to change events, on connections that are lost without a reset."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import redis.asyncio
import redis.exceptions

from llamactl.config import current
from llamactl.core.broker_url import broker_password, socket_path_for
from llamactl.core.events import CHANNEL
from proxy.table import change_events

pytestmark = pytest.mark.usefixtures("broker")


class Relay:
    """TCP in front of the embedded broker; ``silence`` drops all bytes from then on."""

    def __init__(self) -> None:
        self.is_silent = False
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"redis://:{broker_password(current())}@127.0.0.1:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.wait(self._tasks, timeout=30)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back, forth = await asyncio.open_unix_connection(str(socket_path_for(current())))
        self._writers += [writer, forth]
        await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(10_000):
                if not self.is_silent:
                    writer.write(data)


class Listener:
    """``change_events.listen`` in a task."""

    def __init__(self, url: str) -> None:
        self.subscribed, self.changed = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(
            change_events.listen(
                url,
                on_subscribed=self.subscribed.set,
                on_change=lambda payload: self.changed.set(),
            )
        )

    async def lost(self) -> BaseException | None:
        await asyncio.wait([self.task], timeout=30)
        return self.task.exception()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    relay = Relay()
    yield relay
    await relay.stop()


@asynccontextmanager
async def listening(relay: Relay) -> AsyncIterator[Listener]:
    listener = Listener(await relay.start())
    async with asyncio.timeout(30):
        await listener.subscribed.wait()
    yield listener
    listener.task.cancel()
    await asyncio.gather(listener.task, return_exceptions=True)


async def publish() -> None:
    url = f"unix://:{broker_password(current())}@{socket_path_for(current())}"
    with redis.Redis.from_url(url) as client:
        await asyncio.to_thread(client.publish, CHANNEL, "{}")


async def test_an_event_arrives_also_after_a_silence(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broker has to answer within this time, on a busy machine too.
    monkeypatch.setattr(change_events, "SILENCE_SECONDS", 1.0)
    async with listening(relay) as listener:
        asked = 0
        ping = redis.asyncio.client.PubSub.ping

        def count(self: redis.asyncio.client.PubSub) -> object:
            nonlocal asked
            asked += 1
            return ping(self)

        monkeypatch.setattr(redis.asyncio.client.PubSub, "ping", count)
        async with asyncio.timeout(30):
            while asked < 2:
                await asyncio.sleep(0.01)
            await publish()
            await listener.changed.wait()


async def test_a_connection_that_falls_silent_is_lost(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_events, "SILENCE_SECONDS", 0.2)
    async with listening(relay) as listener:
        relay.is_silent = True
        lost = await listener.lost()
    assert isinstance(lost, redis.exceptions.ConnectionError)
    assert "did not answer PING" in str(lost)


async def test_a_broker_that_hangs_from_the_start_is_lost(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_events, "SILENCE_SECONDS", 0.2)
    relay.is_silent = True
    lost = await Listener(await relay.start()).lost()
    assert isinstance(lost, redis.exceptions.RedisError)


async def test_a_timeout_of_the_kernel_ends_the_subscription_and_does_not_spin(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_given_up = False
    readuntil = asyncio.StreamReader.readuntil

    async def readuntil_given_up(self: asyncio.StreamReader, separator: bytes = b"\n") -> bytes:
        if is_given_up:
            # Once keep-alives stay unanswered, the kernel ends each read at once.
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return await readuntil(self, separator)

    monkeypatch.setattr(asyncio.StreamReader, "readuntil", readuntil_given_up)
    async with listening(relay) as listener:
        is_given_up = True
        await publish()
        lost = await listener.lost()
    assert isinstance(lost, redis.exceptions.ConnectionError)
    assert "timed out" in str(lost)
