"""Health check of a backend over HTTP.

``check`` blocks until its timeouts, so it is called off the supervisor's thread.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

CONNECT_SECONDS = 0.5
READ_SECONDS = 2.0
"""A hung backend still accepts connections; a busy llama.cpp answers within 5 ms."""

MAX_HEAD_BYTES = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-9][0-9]{2})[ \r\n]")
_INTERIM_RESPONSES = re.compile(
    rb"\A(?:HTTP/1\.[01] 1[0-9]{2}[^\r\n]*+\r\n(?:[^\r\n]++\r\n)*+\r\n)++"
)

SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0

_TLS_RECORDS = (b"\x15", b"\x16")
"""Types of the record that answers a client's first: an alert (a server that wants a client's
certificate, say) or the handshake's next message (RFC 8446, section 5.1)."""

READY_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True)
class ProbeAnswer:
    """Answer to one probe, for the failure of a start that takes too long."""

    is_ready: bool
    details: str = ""
    """What the probe got, such as ``503 at /health (still loading)``."""
    is_foreign: bool = False
    """Whether another program listens on the port, so that no key may be sent there."""


READY = ProbeAnswer(is_ready=True)


def check(origin: str, paths: Sequence[str]) -> ProbeAnswer:
    """Probe the backend at ``origin`` (``http://host:port``).

    The first of ``paths`` that is not 404 decides: 200 is ready, and so are 401 and 403 (a backend
    that asks for a key is up); 503 is loading. Any other status is not ready, nor is a failed
    connection. The probe carries no key: the listener may be another user's program that took the
    port while the backend starts.
    """
    for path in paths:
        try:
            status = _status(origin, path)
        except (OSError, ValueError) as error:
            return ProbeAnswer(is_ready=False, details=_failed(origin, path, error))
        if status != HTTPStatus.NOT_FOUND:
            loading = " (still loading)" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
            return ProbeAnswer(status in READY_STATUSES, f"{status} at {path}{loading}")
    return ProbeAnswer(
        is_ready=False,
        details=f"404 at {' and '.join(paths)}: another program listens there, or the backend"
        " answers below a prefix",
    )


def _status(origin: str, path: str) -> int:
    """The status of the response to a GET; nothing behind its status line is read.

    One time limit is for the whole probe: with a limit for each read, a backend that drips its
    head, or sends interim responses for ever, would keep one of the supervisor's few threads.
    Raises OSError (TimeoutError) or ValueError.
    """
    host, port = _address(origin)
    with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
        due_at = monotonic() + READ_SECONDS
        lines = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        connection.sendall(lines.encode())
        received = b""
        while len(received) < MAX_HEAD_BYTES:
            connection.settimeout(max(due_at - monotonic(), 0.001))
            piece = connection.recv(4096)
            if not piece:
                break
            received = _INTERIM_RESPONSES.sub(b"", received + piece)
            final = _STATUS_LINE.match(received)
            if final is not None:
                return int(final[1])
            if monotonic() >= due_at:
                raise TimeoutError
    raise ValueError("no response in HTTP")


def _address(origin: str) -> tuple[str, int]:
    address = urlsplit(origin)
    return address.hostname or "", address.port or 80


def _failed(origin: str, path: str, error: Exception) -> str:
    """Describe a probe without an answer."""
    host, port = _address(origin)
    try:
        connection = socket.create_connection((host, port), CONNECT_SECONDS)
    except ConnectionRefusedError:
        return f"connection refused at port {port}"
    except TimeoutError:
        return f"no connection to port {port} within {CONNECT_SECONDS:g} s"
    except OSError as refused:
        return f"no connection to port {port} ({refused.strerror or refused})"
    with connection:
        if isinstance(error, TimeoutError):
            return f"no answer at {path} within {READ_SECONDS:g} s"
        if _speaks_tls(connection):
            return f"a TLS record at port {port}: the backend serves https, llamactl asks by http"
    return f"a connection to port {port} that was closed without an answer in HTTP"


def _speaks_tls(connection: socket.socket) -> bool:
    """Whether the listener answers the first message of a TLS handshake by a TLS record.

    The handshake goes no further. ``SSLContext.wrap_socket`` would do for it, but takes a
    connection that was reset meanwhile for one that is yet to be connected, and raises nothing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    connection.settimeout(CONNECT_SECONDS)
    try:
        connection.sendall(outgoing.read())
        return connection.recv(1) in _TLS_RECORDS
    except OSError:
        return False


def pause_before_next(elapsed_seconds: float) -> float:
    """Return the seconds until the next startup probe, after ``elapsed_seconds`` of starting.

    A tenth of the elapsed time, within limits: a quick start is noticed at once, and a backend that
    loads for minutes is not probed ten times a second.
    """
    return min(max(elapsed_seconds / 10, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
