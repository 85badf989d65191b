"""URLs of the broker, for Celery and for redis-py."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from llamactl.core.secret_files import read_or_create_secret

if TYPE_CHECKING:
    # The foreground process uses this module, and has no use for 20 MB of pydantic.
    from llamactl.config import AppConfig

LONGEST_SOCKET_PATH = 107
"""Bytes; ``sockaddr_un`` has 108 with the NUL."""


class BrokerError(Exception):
    """The embedded broker can't be started; the text gives the reason and the remedy."""


@dataclass(frozen=True)
class BrokerUrls:
    """The URL of one broker in the notations of its three clients."""

    celery: str
    redis: str
    """For redis-py and Django's RedisCache."""
    channels: str


def broker_urls(config: AppConfig) -> BrokerUrls:
    """Return the URLs of the configured broker, or else of the embedded broker.

    The broker is not started, but the embedded broker's password is created if missing. Raises
    OSError or ValueError if the password can't be read or created, and BrokerError if
    ``fallback_directory`` is open to other users.
    """
    if config.redis.url is not None:
        url = config.redis.url.get_secret_value()
        return BrokerUrls(celery=_for_celery(url), redis=url, channels=url)
    path = quote(str(socket_path_for(config)))
    place = f":{quote(broker_password(config), safe='')}@{path}"
    return BrokerUrls(
        celery=f"redis+socket://{place}", redis=f"unix://{place}", channels=f"unix://{place}"
    )


def _for_celery(url: str) -> str:
    """Translate ``unix://`` for kombu, which knows ``redis+socket://`` and ``virtual_host``."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    query = [
        ("virtual_host" if name == "db" else name, value) for name, value in parse_qsl(parts.query)
    ]
    suffix = f"?{urlencode(query)}" if query else ""
    return f"redis+socket://{parts.netloc}{parts.path}{suffix}"


def broker_password(config: AppConfig) -> str:
    return read_or_create_secret(
        config.data_dir / "broker" / "password", lambda: secrets.token_urlsafe(32)
    )


def socket_path_for(config: AppConfig) -> Path:
    path = config.data_dir / "broker" / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return fallback_directory(config.data_dir) / "valkey.sock"


def fallback_directory(data_dir: Path) -> Path:
    """Create a short directory for the broker's socket, for a ``data_dir`` of too long a path.

    The name follows from ``data_dir`` and the user alone, so that all processes agree on it.
    TMPDIR and XDG_RUNTIME_DIR differ between a service and a shell, hence a fixed ``/tmp``.

    Raises BrokerError if the directory belongs to, or is readable by, another user.
    """
    identity = sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]
    directory = Path(f"/tmp/llamactl-{os.getuid()}-{identity}")  # noqa: S108 - see above, checked
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not is_private or status.st_uid != os.getuid():
        raise BrokerError(
            f"{directory}, the directory of the broker's socket, is not ours alone; remove it, or"
            " set LLAMACTL_DATA_DIRECTORY to a shorter path"
        )
    return directory
