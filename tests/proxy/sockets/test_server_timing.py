"""``Server-Timing``: the times of an exchange, as the client sees them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import perf_counter

import pytest

from instances.states import Status
from tests.proxy.conftest import TableGateway
from tests.support.wire import OK, Message, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'


async def test_answer_says_how_long_it_waited_here_and_for_the_backend(
    client: RawClient, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await asyncio.sleep(0.1)
        await session.send(OK.replace(b"\r\n\r\n", b"\r\nServer-Timing: prefill;dur=9\r\n\r\n"))

    backend.script = play
    began = perf_counter()
    client.post(CHAT, MODEL)
    answer = await client.answer()
    took = (perf_counter() - began) * 1000
    assert answer.values(b"server-timing")[0] == b"prefill;dur=9"
    figures = timings(answer)
    assert list(figures) == ["queue", "load", "ttfb"]
    assert figures["ttfb"] >= 90  # the clock of the event loop counts whole milliseconds
    assert figures["queue"] >= 0
    # It should count no time twice.
    assert figures["queue"] + figures["ttfb"] <= took + 1
    assert figures["load"] == 0


@pytest.mark.parametrize(
    ("load_seconds", "is_all_of_it"), [(60.0, True), (0.05, False), (None, False)]
)
async def test_answer_says_how_much_of_the_wait_was_the_load(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    load_seconds: float | None,
    is_all_of_it: bool,
) -> None:
    ready = gateway.live.table.targets["demo"]
    gateway.lay(replace(ready, status=Status.STARTING))
    client.post(CHAT, MODEL)
    await asyncio.sleep(0.2)
    gateway.lay(replace(ready, load_seconds=load_seconds))
    figures = timings(await client.answer())
    if is_all_of_it:
        # It came when a long load was under way.
        assert figures["load"] >= 100 > figures["queue"] >= 0
    else:
        # Before the load it waited in the scheduler's queue.
        assert figures["load"] == (load_seconds or 0) * 1000
        assert figures["queue"] >= 100


def timings(answer: Message) -> dict[str, float]:
    """The times of Server-Timing, in milliseconds and in its order."""
    ours = answer.values(b"server-timing")[-1].decode()
    pairs = [part.strip().split(";dur=") for part in ours.split(",")]
    return {name: float(text) for name, text in pairs}
