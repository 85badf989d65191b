"""The fake backend: one connection as a protocol, and the program as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import requests

from tests.support.fake_backend.connection import Backend, Connection
from tests.support.fake_backend.event_loop import EventLoop
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import free_port
from tests.support.until import until

GET_HEALTH = b"GET /health HTTP/1.1\r\n\r\n"


class FakeTransport:
    """A transport that keeps the written bytes."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.written += b"(closed)"


def connect(backend: Backend | None = None) -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    return Connection(backend or Backend(), EventLoop(), transport), transport


def post(body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_large_body_in_pieces_is_one_request() -> None:
    connection, transport = connect()
    request = post(json.dumps({"messages": "x" * 1_000_000}).encode())
    for start in range(0, len(request), 65536):
        assert transport.written == b""
        connection.data_received(request[start : start + 65536])
    assert transport.written.startswith(b"HTTP/1.1 200 OK")


def test_a_request_behind_a_large_body_is_answered_too() -> None:
    connection, transport = connect()
    request = post(b"x" * 100_000) + GET_HEALTH
    connection.data_received(request[:50_000])
    connection.data_received(request[50_000:])
    assert transport.written.count(b"HTTP/1.1 200 OK") == 2


def test_it_is_not_healthy_while_it_loads() -> None:
    connection, transport = connect(Backend(load_seconds=60))
    connection.data_received(GET_HEALTH)
    assert transport.written.startswith(b"HTTP/1.1 503 ")


def test_a_lost_connection_is_counted_with_its_time() -> None:
    backend = Backend()
    connection, _transport = connect(backend)
    connection.data_received(post(b'{"stream": true, "max_tokens": 1000}'))
    assert (backend.streams, backend.disconnected_at) == (1, [])
    before = time.monotonic()
    connection.connection_lost(None)
    [disconnected_at] = backend.disconnected_at
    assert (backend.streams, backend.aborted) == (0, 1)
    assert before <= disconnected_at <= time.monotonic()


def test_disconnects_are_counted_from_the_last_moment_without_a_stream() -> None:
    backend = Backend()
    for _ in range(2):
        connection, _transport = connect(backend)
        connection.data_received(post(b'{"stream": true}'))
        connection.connection_lost(None)
    connection, transport = connect(backend)
    connection.data_received(b"GET /streams HTTP/1.1\r\n\r\n")
    body = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    assert body["open"] == 0
    assert len(body["disconnected_at"]) == 1


def test_a_document_has_the_length_that_was_asked_for() -> None:
    connection, transport = connect()
    connection.data_received(post(b'{"response_bytes": 5000}'))
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert b"Content-Length: 5000" in head
    assert len(body) == 5000
    assert json.loads(body)["model"] == "fake"


def test_a_document_with_a_nonce_has_its_numbered_tokens_alone() -> None:
    connection, transport = connect()
    connection.data_received(post(b'{"nonce": "word", "max_tokens": 2}'))
    document = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    assert document["choices"][0]["message"]["content"] == " word:1 word:2"


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"max_tokens": "many"}'])
def test_a_body_that_cannot_be_read_is_a_bad_request(body: bytes) -> None:
    connection, transport = connect()
    connection.data_received(post(body))
    assert transport.written.startswith(b"HTTP/1.1 400 ")


# The program


Start = Callable[..., tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the program, without site-packages as most tests do; wait until it listens."""
    started = []

    def start(model: str = "fake", **environment: str) -> tuple[subprocess.Popen[bytes], str]:
        port = free_port()
        argv = [sys.executable, "-S", "-E", str(FAKE_BACKEND), "--port", str(port)]
        process = subprocess.Popen(
            [*argv, "--model", model],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert b"listening" in process.stdout.readline()
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_stream_has_as_many_tokens_as_asked_and_keeps_its_pace(start: Start) -> None:
    _process, url = start()
    began = time.monotonic()
    document = {"stream": True, "max_tokens": 6, "tps": 20, "nonce": "word"}
    answer = requests.post(f"{url}/v1/chat/completions", json=document, timeout=10)
    assert time.monotonic() - began >= 5 / 20
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    assert events.pop() == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"]["content"] for event in events]
    assert pieces == [f" word:{number}" for number in range(1, 7)]


def test_a_stream_of_any_length_reaches_a_client_that_reads_late(start: Start) -> None:
    _process, url = start()
    document = {"stream": True, "max_tokens": 30_000, "tps": 0}
    with requests.post(
        f"{url}/v1/chat/completions", json=document, stream=True, timeout=30
    ) as answer:
        time.sleep(0.2)
        assert answer.text.count(" token") == 30_000


@pytest.mark.parametrize("is_stream", [False, True])
def test_connection_close_ends_the_connection_after_the_answer(
    start: Start, *, is_stream: bool
) -> None:
    _process, url = start()
    body = json.dumps({"stream": is_stream, "tps": 100}).encode()
    request = post(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    port = int(url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as reader:
            assert reader.read().startswith(b"HTTP/1.1 200 OK")


def test_a_disconnected_client_is_noticed_before_the_next_token(start: Start) -> None:
    _process, url = start()
    document = {"stream": True, "max_tokens": 2, "tps": 0.01}
    with requests.post(
        f"{url}/v1/chat/completions", json=document, stream=True, timeout=10
    ) as answer:
        assert next(answer.iter_lines())
    stats = f"{url}/fake/stats"
    until(lambda: requests.get(stats, timeout=5).json()["in_flight"] == 0, "it has noticed")
    assert requests.get(stats, timeout=5).json()["aborted"] == 1


def test_a_key_opens_everything_and_no_key_the_health_alone(start: Start) -> None:
    _process, url = start(LLAMA_API_KEY="secret")
    answers = {
        path: requests.get(url + path, timeout=5).status_code
        for path in ("/health", "/v1/models", "/fake/stats")
    }
    assert answers == {"/health": 200, "/v1/models": 200, "/fake/stats": 401}
    headers = {"Authorization": "Bearer secret"}
    assert requests.get(f"{url}/fake/stats", headers=headers, timeout=5).status_code == 200


def test_knobs_come_by_environment_or_by_the_models_name(start: Start) -> None:
    process, _url = start("fake?exit_code=3", FAKE_CRASH_AFTER="0.1")
    assert process.wait(10) == 3
    process, _url = start(FAKE_CRASH_AFTER="0.1", FAKE_CRASH_SIGNAL="11")
    assert process.wait(10) == -signal.SIGSEGV
    process, url = start("fake?ignore_sigterm&never_healthy")
    process.terminate()
    assert requests.get(f"{url}/health", timeout=5).status_code == 503


def test_a_hanging_program_accepts_and_says_nothing(start: Start) -> None:
    _process, url = start(FAKE_HANG="1")
    port = int(url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=0.3)) as connection:
        connection.sendall(GET_HEALTH)
        with pytest.raises(TimeoutError):
            connection.recv(1)
