"""Probes against the fake backend, and against listeners that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep

import pytest

from instances.supervisor.controller import health_check
from instances.supervisor.controller.health_check import ProbeAnswer, check, pause_before_next
from tests.instances.supervisor.conftest import PROGRAM
from tests.support.until import until

PATHS = ("/health", "/v1/models")

Start = Callable[..., str]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def backend() -> Iterator[Start]:
    """Starts a fake backend with these knobs; returns its origin once it listens."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**knobs: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        argv = [sys.executable, "-S", "-E", str(PROGRAM), "--port", str(port)]
        environment = {"PATH": os.environ["PATH"], **knobs}
        started.append(subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL))
        until(lambda: listens(port))
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def listener() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Answers each connection with a function; returns the origin."""
    servers: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection, suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    threads: list[threading.Thread] = []
    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()


def test_healthy_is_ready(backend: Start) -> None:
    assert check(backend(), PATHS).is_ready


def test_loading_is_not_ready(backend: Start) -> None:
    answer = check(backend(FAKE_NEVER_HEALTHY="1"), PATHS)
    assert answer == ProbeAnswer(is_ready=False, details="503 at /health (still loading)")


def test_a_backend_without_health_is_asked_for_its_models(backend: Start) -> None:
    assert check(backend(FAKE_NO_HEALTH="1"), PATHS).is_ready


def test_no_key_is_sent(
    listener: Callable[[Callable[[socket.socket], None]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another user's program may have taken the port while the backend starts.
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert check(listener(answer), PATHS).is_ready
    assert seen[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"authorization" not in seen[0].lower()


def test_a_backend_that_wants_a_key_is_up(backend: Start) -> None:
    origin = backend(FAKE_NO_HEALTH="1", FAKE_MODELS_NEED_KEY="1", LLAMA_API_KEY="k")
    assert check(origin, PATHS) == ProbeAnswer(is_ready=True, details="401 at /v1/models")


def test_a_server_that_knows_no_path_is_not_ready(backend: Start) -> None:
    answer = check(backend(), ("/nothing", "/here"))
    assert not answer.is_ready
    assert answer.details.startswith("404 at /nothing and /here")


def test_a_port_without_a_listener_is_not_ready() -> None:
    answer = check("http://127.0.0.1:9", PATHS)
    assert answer == ProbeAnswer(is_ready=False, details="connection refused at port 9")


def test_a_probe_of_a_hung_backend_times_out(
    backend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "READ_SECONDS", 0.1)
    answer = check(backend(FAKE_HANG="1"), PATHS)
    assert answer == ProbeAnswer(is_ready=False, details="no answer at /health within 0.1 s")


def test_a_backend_that_serves_https_is_recognised(
    listener: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    # A server without a certificate refuses each handshake with an alert: a TLS record.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def answer(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True)

    details = check(listener(answer), PATHS).details
    assert details.startswith("a TLS record at port ")


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_listener_that_speaks_no_http_is_described(
    listener: Callable[[Callable[[socket.socket], None]], str], text: bytes
) -> None:
    answer = check(listener(lambda connection: connection.sendall(text)), PATHS)
    assert not answer.is_ready
    assert "closed without an answer in HTTP" in answer.details


def test_a_listener_that_resets_each_connection_serves_no_https(
    listener: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    def answer(connection: socket.socket) -> None:
        # Without lingering, close sends RST.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    answered = check(listener(answer), PATHS)
    assert not answered.is_ready
    assert "TLS" not in answered.details


def test_a_proxy_of_the_environment_is_not_used(
    backend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert check(backend(), PATHS).is_ready


@pytest.mark.parametrize(
    ("elapsed", "pause"), [(0.0, 0.1), (0.9, 0.1), (3.0, 0.3), (10.0, 1.0), (1000.0, 1.0)]
)
def test_the_longer_a_start_takes_the_rarer_are_its_probes(elapsed: float, pause: float) -> None:
    assert pause_before_next(elapsed) == pytest.approx(pause)


ENDLESS = [
    pytest.param((b"", b"H"), id="garbage"),
    pytest.param((b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim responses"),
    pytest.param((b"HTTP/1.1 103 Early\r\n", b"a: b\r\n"), id="headers"),
]


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("pieces", ENDLESS)
def test_a_response_without_an_end_ends_the_probe(
    listener: Callable[[Callable[[socket.socket], None]], str],
    monkeypatch: pytest.MonkeyPatch,
    pieces: tuple[bytes, bytes],
    is_fast: bool,
) -> None:
    """It would keep one of the supervisor's few threads."""
    monkeypatch.setattr(health_check, "READ_SECONDS", 0.3)

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(pieces[0])
        while True:
            connection.sendall(pieces[1] * (1000 if is_fast else 1))
            if not is_fast:
                sleep(0.01)

    assert not check(listener(answer), PATHS).is_ready


def test_a_body_without_an_end_is_not_read(
    listener: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 2**20)

    assert check(listener(answer), PATHS) == ProbeAnswer(is_ready=True, details="200 at /health")
