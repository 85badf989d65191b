"""The log endpoint as plain text."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.test import Client

from instances import lifecycle
from instances.api.logs import LogBlocks
from instances.local_agent import LocalAgent, LogSnapshot
from instances.logs.files import log_path
from instances.logs.truncate import rotate
from llamactl.config import AppConfig
from tests.support.asgi import AsgiRequest, AsgiResponse
from tests.support.loop_stall import measured_memory

pytestmark = pytest.mark.django_db
LOGS = "/api/v1/instances/x/logs"


@pytest.fixture
def log(config: AppConfig) -> Any:
    lifecycle.create("x", {}, cause="test")
    path = log_path(config, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


def test_log_is_empty_before_the_first_start(api: Client, log: Path) -> None:
    for query in ("", "?lines=5"):
        response = api.get(LOGS + query)
        assert (response.status_code, response.content) == (200, b"")
        assert response["Content-Type"] == "text/plain; charset=utf-8"


def test_last_lines_are_returned(api: Client, log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthree \xff\n")
    assert api.get(f"{LOGS}?lines=2").content == "two\nthree �\n".encode()
    assert api.get(f"{LOGS}?lines=999999999999").content.startswith(b"one\n")


@pytest.mark.parametrize(
    "lines", ["x", "1.5", "1e3", "%00", "1_0", "%D9%A3", "9" * 30, "-9" * 20, "5;id", "0x10"]
)
def test_invalid_number_of_lines_is_refused(api: Client, log: Path, lines: str) -> None:
    response = api.get(f"{LOGS}?lines={lines}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")


def test_unreadable_log_is_500(api: Client, log: Path) -> None:
    log.mkdir()
    try:
        for query in ("", "?lines=5"):
            response = api.get(LOGS + query)
            assert (response.status_code, response.json()["error"]) == (500, "logs_failed")
    finally:
        log.rmdir()


async def whole(key: str, query: bytes = b"") -> AsgiResponse:
    application = get_asgi_application()
    return await AsgiRequest(application, LOGS, method="GET", key=key, query=query).finish()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", [b"", b"lines=", b"lines=0", b"lines=-1"])
async def test_without_lines_the_whole_file_is_returned(
    management_key: str, config: AppConfig, query: bytes
) -> None:
    await asyncio.to_thread(lifecycle.create, "x", {}, cause="test")
    path = log_path(config, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = os.urandom(300_000)
    path.write_bytes(content)
    answer = await whole(management_key, query)
    assert (answer.status, answer.body) == (200, content)
    # It should come in parts: a log may be larger than memory.
    assert len(answer.chunks) > 2
    path.unlink()


async def test_growing_log_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"x" * 100_000)
    received = 0
    async for block in LogBlocks(LogSnapshot("x", path)):
        received += len(block)
        with path.open("ab") as more:
            more.write(b"y" * 100_000)
    assert received == 100_000


async def test_rotation_during_the_response_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    content = b"".join(b"line %09d\n" % number for number in range(30_000))
    path.write_bytes(content)
    received = []
    async for block in LogBlocks(LogSnapshot("x", path)):
        received.append(block)
        if len(received) == 2:
            await asyncio.to_thread(rotate, path)
    assert b"".join(received) == content


def test_last_lines_reach_back_over_a_rotation(api: Client, log: Path) -> None:
    lines = [b"line %09d\n" % number for number in range(30_000)]
    log.write_bytes(b"".join(lines))
    segment = rotate(log)
    assert segment is not None
    try:
        assert api.get(f"{LOGS}?lines=1000").content == b"".join(lines[-1000:])
    finally:
        segment.path.unlink()


async def streamed(response: Any) -> bytes:
    return b"".join([block async for block in response.streaming_content])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"one\r\ntwo\r", "one\ntwo\n"),
        ("ü\0😀\n".encode() * 9 + b"\xf0\x9f", "ü\ufffd😀\n" * 9 + "\ufffd\n"),
        (b"a\rb\n\r\n\n", "a\rb\n\n\n"),
    ],
)
def test_last_lines_are_readable_wherever_a_block_ends(
    log: Path, written: bytes, expected: str
) -> None:
    log.write_bytes(written)
    for size in (1, 2, 3, 1000):
        text = LocalAgent().read_log("x", lines=100)
        assert text is not None
        assert b"".join(iter(partial(text.read, size), b"")).decode() == expected


def test_many_last_lines_take_little_memory(api: Client, log: Path) -> None:
    async def size_of(response: Any) -> int:
        return sum([len(block) async for block in response.streaming_content])

    log.write_bytes(("first\n" + "x" * 200_000).encode())
    asyncio.run(size_of(api.get(f"{LOGS}?lines=1")))
    log.write_bytes(("first\n" + "x" * 4_000_000 + "😀").encode())
    with measured_memory() as peak:
        size = asyncio.run(size_of(api.get(f"{LOGS}?lines=1")))
    assert size == 4_000_005
    assert peak.grown_bytes < 2**20 + size // 4


def test_disconnect_closes_the_rotated_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"line\n" * 10_000)
    text = LogSnapshot("x", path)
    rotate(path)
    text.read(10)
    segment = text._reader._segment
    assert segment is not None
    LogBlocks(text).close()
    assert segment.closed
