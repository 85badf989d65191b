"""A log that is followed: what comes, when, and what is left when the client goes."""

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
from instances.api.log_stream import CUT_MARK, READERS, EventWriter, LogFollower
from instances.errors import TooManyFollowers
from instances.logs.files import log_path
from instances.logs.reader import BEFORE_THE_FIRST, LogReader, Position
from instances.logs.truncate import rotate
from llamactl.config import AppConfig
from tests.support.asgi import AsgiRequest

LOGS = "/api/v1/instances/x/logs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


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


class Told:
    """What an ``EventWriter`` makes of what is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.writer = EventWriter(LogReader(path, BEFORE_THE_FIRST))

    def after(self, content: bytes, *, seconds: float = 0.0) -> list[str]:
        append(self.path, content)
        self.now += seconds
        stream = b"".join(iter(lambda: self.writer.more(self.now), b""))
        assert stream.count(b"\r") == 0
        return [data for _, data in parsed(stream)]


@pytest.fixture
def told(path: Path) -> Told:
    return Told(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n\nx\n", ["", "", "x"]),
        (b"10%\r20%\r30%\n", ["10%", "20%", "30%"]),
        (b"data: x\nid: 7\nevent: y\n: z\n", ["data: x", "id: 7", "event: y", ": z"]),
        (b"\xff\xfe broken\n", ["\ufffd\ufffd broken"]),
        (b"nul \x00 byte\n", ["nul \ufffd byte"]),
        ("grün \u2028 \u0085\n".encode(), ["grün \u2028 \u0085"]),
        (b" indented \n", [" indented "]),
    ],
)
def test_each_line_is_an_event(told: Told, content: bytes, expected: list[str]) -> None:
    append(told.path, content)
    stream = b"".join(iter(lambda: told.writer.more(0.0), b""))
    lines = [block.split(b"\ndata: ")[1] for block in stream.split(b"\n\n")[:-1]]
    assert [line.decode() for line in lines] == expected


def test_an_unfinished_line_is_told_after_a_second_and_its_rest_later(told: Told) -> None:
    assert told.after(b"loading ..") == []
    assert told.after(b"..", seconds=0.5) == []
    assert told.after(b"", seconds=0.5) == ["loading ...."]
    assert told.after(b". done", seconds=0.1) == []
    assert told.after(b"\nnext\n") == [". done", "next"]


def test_the_end_of_a_line_that_was_told_is_no_event(told: Told) -> None:
    told.after(b"ready")
    assert told.after(b"", seconds=1) == ["ready"]
    assert told.after(b"\nnext\n") == ["next"]
    assert told.after(b"\n") == [""]


def test_a_progress_bar_is_told_as_it_comes(told: Told) -> None:
    told.after(b"10%\r")
    assert told.after(b"", seconds=1) == ["10%"]
    assert told.after(b"20%\r30%\r") == ["20%"]
    assert told.after(b"", seconds=1) == ["30%"]


def test_half_a_character_waits_for_its_other_half(told: Told) -> None:
    told.after("grü".encode()[:-1])
    assert told.after(b"", seconds=1) == ["gr"]
    assert told.after("ü".encode()[1:] + b"n\n") == ["ün"]


def test_a_line_without_an_end_comes_in_bounded_parts(told: Told) -> None:
    content = b"x" * 3_000_000
    events = told.after(content + b"\nnext\n")
    assert events[-1] == "next"
    *parts, last = events[:-1]
    assert len(parts) == 2
    mark = CUT_MARK.decode()
    assert all(part.endswith(mark) and len(part) < 1_200_000 for part in parts)
    assert "".join(part.removesuffix(mark) for part in parts) + last == content.decode()


@pytest.mark.parametrize("rotated_after", range(0, 60, 7))
def test_a_client_that_comes_back_misses_nothing(path: Path, rotated_after: int) -> None:
    lines = [f"line {number} {'x' * 100}" for number in range(60)]
    append(path, "".join(f"{line}\n" for line in lines).encode())
    events = parsed(EventWriter(LogReader(path, BEFORE_THE_FIRST)).more(0.0))
    assert [data for _, data in events] == lines
    rotate(path)
    position = Position.from_text(events[rotated_after][0])
    assert position is not None
    writer = EventWriter(LogReader(path, position))
    again = parsed(b"".join(iter(lambda: writer.more(0.0), b"")))
    assert [data for _, data in again] == lines[rotated_after + 1 :]


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
async def log(transactional_db: None, config: AppConfig) -> AsyncIterator[Path]:
    await asyncio.to_thread(lifecycle.create, "x", {}, cause="test")
    path = log_path(config, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    for each in path.parent.glob("x.log*"):
        each.unlink()
    assert not log_stream._followers


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


async def test_the_last_lines_come_first_and_then_each_new_one(log: Path, follow: Follow) -> None:
    append(log, b"one\ntwo\nthree\n")
    exchange = follow("&lines=2")
    assert [data for _, data in await until_events(exchange, 2)] == ["two", "three"]
    append(log, b"four\n")
    assert [data for _, data in await until_events(exchange, 3)] == ["two", "three", "four"]
    assert exchange.response.status == 200
    assert exchange.response.header("Content-Type") == "text/event-stream"
    assert exchange.response.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(("query", "count"), [("", 100), ("&lines=0", 500), ("&lines=120", 120)])
async def test_so_many_lines_of_the_past_are_told(
    log: Path, follow: Follow, query: str, count: int
) -> None:
    append(log, b"".join(b"%d\n" % number for number in range(500)))
    events = await until_events(follow(query), count)
    assert [data for _, data in events] == [str(number) for number in range(500 - count, 500)]


async def test_an_instance_that_was_never_started_is_waited_for(log: Path, follow: Follow) -> None:
    exchange = follow()
    await exchange.first_chunk()
    append(log, b"one\n")
    assert [data for _, data in await until_events(exchange, 1)] == ["one"]


async def test_a_rotation_is_not_noticed(log: Path, follow: Follow) -> None:
    exchange = follow("&lines=0")
    await exchange.first_chunk()
    for turn in range(5):
        lines = (b"line %09d\n" % number for number in range(turn * 1000, turn * 1000 + 1000))
        append(log, b"".join(lines))
        await asyncio.to_thread(rotate, log)
    events = await until_events(exchange, 5000)
    assert [data for _, data in events] == [f"line {number:09}" for number in range(5000)]


async def test_last_event_id_goes_on_after_that_event(log: Path, follow: Follow) -> None:
    append(log, b"one\ntwo\nthree\n")
    events = await until_events(follow(), 3)
    again = follow("&lines=1", (b"last-event-id", events[0][0].encode()))
    assert [data for _, data in await until_events(again, 2)] == ["two", "three"]


@pytest.mark.parametrize("text", [b"", b"x", b"\xff", b"1-1-" + b"9" * 1000, b"../../x"])
async def test_a_last_event_id_that_is_none_is_as_none(
    log: Path, follow: Follow, text: bytes
) -> None:
    append(log, b"one\ntwo\n")
    events = await until_events(follow("&lines=1", (b"last-event-id", text)), 1)
    assert [data for _, data in events] == ["two"]


async def test_a_client_that_goes_is_noticed_while_nothing_happens(
    log: Path, follow: Follow
) -> None:
    exchange = follow()
    await exchange.first_chunk()
    assert len(log_stream._followers) == 1
    exchange.disconnect()
    await exchange.finish(within_seconds=5)
    assert len(log_stream._followers) == 0


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
        assert len(log_stream._followers) == 5
    finally:
        connection_created.disconnect(note)
    for exchange in exchanges:
        exchange.disconnect()
        await exchange.finish()


async def test_a_slow_client_is_not_read_ahead_of(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, b"x" * 99 + b"\n" * 1 + (b"y" * 99 + b"\n") * 100_000)
    read = []
    more = EventWriter.more

    def counted(self: EventWriter, now: float) -> bytes:
        read.append(len(events := more(self, now)))
        return events

    monkeypatch.setattr(EventWriter, "more", counted)
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


async def test_silence_is_broken_by_heartbeats(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "HEARTBEAT_SECONDS", 0.1)
    exchange = follow()
    async with asyncio.timeout(10):
        while exchange.response.body.count(b"\n: still there\n\n") < 2:
            await asyncio.sleep(0.01)
    append(log, b"one\n")
    assert [data for _, data in await until_events(exchange, 1)] == ["one"]


async def test_it_ends_when_the_web_process_is_told_to(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = follow()
    await exchange.first_chunk()
    monkeypatch.setattr(log_stream, "is_shutting_down", lambda: True)
    answer = await exchange.finish()
    assert answer.is_complete


async def test_a_log_that_can_no_longer_be_read_ends_it(
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


async def test_head_has_no_stream(log: Path, follow: Follow) -> None:
    answer = await follow(method="HEAD").finish()
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Content-Type") == "text/event-stream"


async def test_no_more_than_so_many_follow_at_once(
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


def test_a_follower_that_nobody_closed_does_not_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "MAX_FOLLOWERS", 1)
    follower = LogFollower(LogReader(path, BEFORE_THE_FIRST), "x")
    with pytest.raises(TooManyFollowers):
        LogFollower(LogReader(path, BEFORE_THE_FIRST), "x")
    del follower
    gc.collect()
    LogFollower(LogReader(path, BEFORE_THE_FIRST), "x").close()


async def test_without_a_key_there_is_no_stream(log: Path) -> None:
    application = ASGIHandler()
    answer = await AsgiRequest(application, LOGS, method="GET", query=b"follow=true").finish()
    assert answer.status == 401


async def test_an_unknown_instance_has_no_stream(log: Path, management_key: str) -> None:
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
def test_a_follow_that_is_neither_true_nor_false_is_refused(api: Client, text: str) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow={text}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["false", "0", "False"])
def test_without_follow_it_is_plain_text(api: Client, text: str) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow={text}&lines=3")
    assert (response.status_code, response["Content-Type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.django_db
def test_under_wsgi_it_is_refused_instead_of_collected_for_ever(api: Client) -> None:
    lifecycle.create("x", {}, cause="test")
    response = api.get(f"{LOGS}?follow=true")
    assert (response.status_code, response.json()["error"]) == (501, "logs_failed")
