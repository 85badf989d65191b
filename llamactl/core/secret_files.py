"""Where is a secret that we made ourselves kept? In a file that its owner alone can read."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

LARGEST_SECRET_BYTES = 4096
MOST_ATTEMPTS = 10


def read_or_create_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file at ``path``, without blanks around it; made by ``make`` at first.

    1. A file that holds a secret is read, and tightened to mode 0600 with a warning if others can
       read it.
    2. Otherwise the secret is written to a file beside it, complete and on disk, and then linked to
       ``path``. Of several processes that do so at once one wins; the others read its secret.
    3. An empty file is what a crash left behind. It is replaced, again by one process alone.

    Directories that are missing are made with mode 0700. Raises OSError when the file can't be
    read or written, and ValueError when what is in it, or what ``make`` gives, is no secret.
    """
    for directory in reversed([path.parent, *path.parent.parents]):
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
    for _ in range(MOST_ATTEMPTS):
        if found := _read(path):
            return found
        secret = _usable(make(), "the new secret")
        if not secret:
            raise ValueError("the new secret is empty")
        if _publish(path, secret):
            return secret
    raise OSError(f"{path}: is neither there nor to be made (a link that leads nowhere?)")


def _usable(text: str, subject: object) -> str:
    # Some file systems fill what a power cut kept from the disk with NULs.
    secret = text.strip(" \t\r\n\0")
    if not secret.isprintable():
        raise ValueError(f"{subject}: must be one line of printable text")
    return secret


def _read(path: Path) -> str:
    """The secret, or "" when there is none."""
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: must be a regular file")
        if mode & 0o077:
            _tighten(path, descriptor)
        content = file.read(LARGEST_SECRET_BYTES + 1)
    if len(content) > LARGEST_SECRET_BYTES:
        raise ValueError(f"{path}: must hold one secret of at most {LARGEST_SECRET_BYTES} bytes")
    try:
        return _usable(content.decode(), path)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: must hold UTF-8 text") from None


def _tighten(path: Path, descriptor: int) -> None:
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:  # another owner's, or a read-only mount: still a secret to use
        logger.warning("%s can be used by others, and stays so: %s", path, error.strerror)
    else:
        logger.warning("%s could be used by others; its mode is now 0600", path)


def _publish(path: Path, secret: str) -> bool:
    """Put ``secret`` at ``path`` in one step. False when another process was first."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return _replace_empty(path, draft)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _replace_empty(path: Path, draft: Path) -> bool:
    """Replace the file at ``path`` if it is still empty. False when it is not.

    Whoever replaces holds a lock on the very file that is being replaced, so a slow process can't
    take the winner's new file for the empty one that it saw.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with open(descriptor, "rb") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            is_current = os.path.samestat(os.fstat(descriptor), path.stat())
            if is_current and not file.read(LARGEST_SECRET_BYTES).strip(b" \t\r\n\0"):
                draft.replace(path)
                return True
    return False
