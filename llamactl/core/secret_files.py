"""Files of generated secrets, readable by their owner alone."""

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
    """Read the secret in the file at ``path``; without a file, create it with the one of ``make``.

    1. Read a file that holds a secret. If other users can read the file, set its mode to 0600 and
       warn.
    2. Without a file, write the secret to a draft beside it, sync the draft, and link it to
       ``path``. Of several processes one succeeds, and the others read its secret.
    3. Replace an empty file, left by a crash, again in one process alone.

    Missing directories are created with mode 0700. Raises OSError if the file can't be read or
    written, and ValueError if the content, or the result of ``make``, is not a line of text.
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
    raise OSError(f"{path}: can be neither read nor created (is it a broken link?)")


def _usable(text: str, subject: object) -> str:
    # After a power cut some file systems fill unwritten parts of a file with NULs.
    secret = text.strip(" \t\r\n\0")
    if not secret.isprintable():
        raise ValueError(f"{subject}: must be one line of printable text")
    return secret


def _read(path: Path) -> str:
    """Read the secret, or "" without one."""
    try:
        # O_NONBLOCK: a FIFO at the path must not block the process.
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
    except OSError as error:  # another owner, or a read-only mount: the secret is still usable
        logger.warning("%s is open to other users, and stays so: %s", path, error.strerror)
    else:
        logger.warning("%s was open to other users; its mode is now 0600", path)


def _publish(path: Path, secret: str) -> bool:
    """Put ``secret`` at ``path`` atomically. Return False if another process was first."""
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
    """Replace the file at ``path`` if it is still empty. Return False otherwise.

    The replacing process locks the empty file itself, so a slow process can't mistake the winner's
    new file for the empty file.
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
