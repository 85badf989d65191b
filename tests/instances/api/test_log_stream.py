"""Following a log over HTTP: events, reconnects, bounds, and the release after a disconnect."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import Client

from instances import lifecycle
from instances.api import log_stream
from instances.api.log_stream import READERS, LogEventStream
from instances.errors import TooManyFollowers
from instances.logs.files import log_path
from instances.logs.lines import LineReader
from instances.logs.truncate import rotate
from llamactl.config import AppConfig
from nodes.agent import LogLine
from tests.support.asgi import AsgiRequest

LOGS = "/api/v1/instances/x/logs"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as log:
        log.write(content)


def parsed(stream: bytes) -> list[tuple[str, str]]:
    """(id, data) of the events, as a browser understands them."""
    events = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] not in ":")
        if "data" in fields:
            events.append((fields["id"], fields["data"]))
    return events


@pytest.fixture
async def log(transactional_db: None, config: AppConfig) -> AsyncIterator[Path]:
    await asyncio.to_thread(lifecycle.create, "x", {}, cause="test")
    path = log_path(config, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    for each in path.parent.glob("x.log*"):
        each.unlink()
    assert not log_stream._streams


Follow = Callable[..., AsgiRequest]


@pytest.fixture
async def follow(log: Path, management_key: str) -> AsyncIterator[Follow]:
    """Follows the log; ends when the test does."""
    exchanges: list[AsgiRequest] = []

    def begin(query: str = "", *headers: tuple[bytes, bytes], method: str = "GET") -> AsgiRequest:
        application = ASGIHandler()
        exchange = AsgiRequest(
            application,
            LOGS,
            method=method,
            key=management_key,
            query=f"follow=true{query}".encode(),
            headers=list(headers),
        )
        exchanges.append(exchange)
        return exchange.start()

    yield begin
    for exchange in exchanges:
        exchange.disconnect()
        await exchange.finish()


async def until_events(
    exchange: AsgiRequest, count: int, *, within_seconds: float = 10
) -> list[tuple[str, str]]:
    """The events, once there are so many."""
    async with asyncio.timeout(within_seconds):
        while len(events := parsed(exchange.response.body)) < count:
            await asyncio.sleep(0.01)
    return events


async def test_last_lines_come_first_and_then_each_new_line(log: Path, follow: Follow) -> None:
    append(log, b"one\ntwo\nthree\n")
    exchange = follow("&lines=2")
    assert [data for _, data in await until_events(exchange, 2)] == ["two", "three"]
    append(log, b"four\n")
    assert [data for _, data in await until_events(exchange, 3)] == ["two", "three", "four"]
    assert exchange.response.status == 200
    assert exchange.response.header("Content-Type") == "text/event-stream"
    assert exchange.response.header("Cache-Control") == "no-store"


async def test_line_that_reads_like_a_field_is_data(log: Path, follow: Follow) -> None:
    append(log, b"data: x\nid: 7\nevent: y\n: z\n\n indented \n")
    events = await until_events(follow("&lines=0"), 6)
    assert [data for _, data in events] == ["data: x", "id: 7", "event: y", ": z", "", " indented "]


@pytest.mark.parametrize(("query", "count"), [("", 100), ("&lines=0", 500), ("&lines=120", 120)])
async def test_lines_of_the_past_are_sent_as_asked(
    log: Path, follow: Follow, query: str, count: int
) -> None:
    append(log, b"".join(b"%d\n" % number for number in range(500)))
    events = await until_events(follow(query), count)
    assert [data for _, data in events] == [str(number) for number in range(500 - count, 500)]


async def test_log_of_an_instance_never_started_is_awaited(log: Path, follow: Follow) -> None:
    exchange = follow()
    await exchange.first_chunk()
    append(log, b"one\n")
    assert [data for _, data in await until_events(exchange, 1)] == ["one"]


async def test_rotation_loses_and_repeats_no_line(log: Path, follow: Follow) -> None:
    exchange = follow("&lines=0")
    await exchange.first_chunk()
    for turn in range(5):
        lines = (b"line %09d\n" % number for number in range(turn * 1000, turn * 1000 + 1000))
        append(log, b"".join(lines))
        await asyncio.to_thread(rotate, log)
    events = await until_events(exchange, 5000)
    assert [data for _, data in events] == [f"line {number:09}" for number in range(5000)]


async def test_last_event_id_resumes_after_that_event(log: Path, follow: Follow) -> None:
    append(log, b"one\ntwo\nthree\n")
    events = await until_events(follow(), 3)
    again = follow("&lines=1", (b"last-event-id", events[0][0].encode()))
    assert [data for _, data in await until_events(again, 2)] == ["two", "three"]


@pytest.mark.parametrize("text", [b"", b"x", b"\xff", b"1-1-" + b"9" * 1000, b"../../x"])
async def test_invalid_last_event_id_is_ignored(log: Path, follow: Follow, text: bytes) -> None:
    append(log, b"one\ntwo\n")
    events = await until_events(follow("&lines=1", (b"last-event-id", text)), 1)
    assert [data for _, data in events] == ["two"]


async def test_disconnect_from_a_silent_log_ends_the_stream(log: Path, follow: Follow) -> None:
    exchange = follow()
    await exchange.first_chunk()
    assert len(log_stream._streams) == 1
    exchange.disconnect()
    await exchange.finish(within_seconds=5)
    assert len(log_stream._streams) == 0


async def test_followers_hold_neither_threads_nor_connections(log: Path, follow: Follow) -> None:
    opened: WeakSet[BaseDatabaseWrapper] = WeakSet()
    before = set(threading.enumerate())

    def note(connection: BaseDatabaseWrapper, **_: Any) -> None:
        opened.add(connection)

    def held() -> tuple[list[str], int]:
        # The two readers are shared by all followers, and stay.
        threads = set(threading.enumerate()) - before - READERS._threads
        # Not the open files: SQLite keeps those of a closed connection for the next one.
        connections = [each for each in list(opened) if each.connection is not None]
        return sorted(thread.name for thread in threads), len(connections)

    connection_created.connect(note)
    try:
        exchanges = [follow() for _ in range(5)]
        for exchange in exchanges:
            await exchange.first_chunk()
        assert opened, "nothing was counted"
        for _ in range(1000):
            if held() == ([], 0):
                break
            await asyncio.sleep(0.01)
        assert held() == ([], 0)
        assert len(log_stream._streams) == 5
    finally:
        connection_created.disconnect(note)
    for exchange in exchanges:
        exchange.disconnect()
        await exchange.finish()


async def test_slow_client_holds_up_the_reading(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, b"x" * 99 + b"\n" * 1 + (b"y" * 99 + b"\n") * 100_000)
    read = []
    read_lines = LineReader.read_lines

    def counted(self: LineReader) -> list[LogLine]:
        lines = read_lines(self)
        read.append(sum(len(line.text) for line in lines))
        return lines

    monkeypatch.setattr(LineReader, "read_lines", counted)
    monkeypatch.setattr(AsgiRequest, "_send", _stall)
    exchange = follow("&lines=0")
    await exchange.first_chunk()
    await asyncio.sleep(0.5)
    assert sum(read) < 500_000


async def _stall(self: AsgiRequest, message: Any) -> None:
    """A client that takes the head and the first piece, and no more."""
    if message.get("body"):
        if self.chunk_came.is_set():
            await asyncio.Event().wait()
        self.chunk_came.set()


async def test_heartbeats_break_a_silence(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "HEARTBEAT_SECONDS", 0.1)
    exchange = follow()
    async with asyncio.timeout(10):
        while exchange.response.body.count(b"\n: still there\n\n") < 2:
            await asyncio.sleep(0.01)
    append(log, b"one\n")
    assert [data for _, data in await until_events(exchange, 1)] == ["one"]


async def test_shutdown_of_the_web_process_ends_the_stream(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = follow()
    await exchange.first_chunk()
    monkeypatch.setattr(log_stream, "is_shutting_down", lambda: True)
    answer = await exchange.finish()
    assert answer.is_complete


async def test_unreadable_log_ends_the_stream(
    log: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = follow()
    await exchange.first_chunk()
    log.mkdir()
    try:
        answer = await exchange.finish()
    finally:
        log.rmdir()
    assert answer.is_complete
    assert "can't be followed" in caplog.text


async def test_head_request_has_no_stream(log: Path, follow: Follow) -> None:
    answer = await follow(method="HEAD").finish()
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Content-Type") == "text/event-stream"


async def test_followers_beyond_the_bound_are_refused(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "MAX_FOLLOWERS", 2)
    first = [follow(), follow()]
    for exchange in first:
        await exchange.first_chunk()
    answer = await follow().finish()
    assert (answer.status, answer.json()["error"]) == (503, "too_many_followers")
    assert answer.header("Retry-After") == "10"
    first[0].disconnect()
    await first[0].finish()
    await follow().first_chunk()


class SilentLog:
    """A followed log without a line."""

    def __init__(self) -> None:
        self.is_closed = False

    def read_lines(self) -> list[LogLine]:
        return []

    def close(self) -> None:
        self.is_closed = True


def test_stream_dropped_without_close_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "MAX_FOLLOWERS", 1)
    stream = LogEventStream(SilentLog(), "x")
    refused = SilentLog()
    with pytest.raises(TooManyFollowers):
        LogEventStream(refused, "x")
    assert refused.is_closed
    del stream
    gc.collect()
    LogEventStream(SilentLog(), "x").close()


async def test_without_a_key_there_is_no_stream(log: Path) -> None:
    application = ASGIHandler()
    answer = await AsgiRequest(application, LOGS, method="GET", query=b"follow=true").finish()
    assert answer.status == 401


async def test_unknown_instance_has_no_stream(log: Path, management_key: str) -> None:
    answer = await AsgiRequest(
        ASGIHandler(),
        "/api/v1/instances/nobody/logs",
        method="GET",
        query=b"follow=true",
        key=management_key,
    ).finish()
    assert answer.status == 404


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["", "yes", "%00", "2", "tru%65e", "\u0131", "true,true"])
def test_follow_other_than_true_or_false_is_refused(api: Client, text: str) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow={text}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["false", "0", "False"])
def test_without_follow_the_log_is_plain_text(api: Client, text: str) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow={text}&lines=3")
    assert (response.status_code, response["Content-Type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.django_db
def test_following_is_refused_under_wsgi(api: Client) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow=true")
    assert (response.status_code, response.json()["error"]) == (501, "logs_failed")
