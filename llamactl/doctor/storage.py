"""Is the data directory there, ours alone, and is there room in it?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llamactl.config import AppConfig
from llamactl.doctor.findings import Diagnosis, note, ok, problem, size, warning

SUBJECT = "data directory"
LOGS = "logs"
LITTLE_BYTES = 2 * 2**30
TOO_LITTLE_BYTES = 200 * 2**20
TOO_FEW_FILES = 1000
MANY_LOG_BYTES = 10 * 2**30
SECRETS = ("secret_key", "management_key", "admin_password", "broker/password")
SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "ceph", "glusterfs")
"""Where locks, and SQLite's shared memory, can't be relied on."""


@dataclass(frozen=True)
class DirectoryFacts:
    path: Path
    exists: bool
    is_directory: bool = True
    owner: int = 0
    user: int = 0
    mode: int = 0o700
    is_usable: bool = True
    """Whether this user may read, write and enter it."""
    can_be_made: bool = True
    free_bytes: int = 0
    free_files: int | None = None
    file_system: str = ""
    exposed_secrets: list[str] = field(default_factory=list)


def look(path: Path) -> DirectoryFacts:
    user = os.getuid()
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        above = next((each for each in path.parents if each.exists()), Path("/"))
        can_be_made = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        return DirectoryFacts(path, exists=False, user=user, can_be_made=can_be_made)
    except PermissionError:
        return DirectoryFacts(path, exists=True, user=user, is_usable=False, owner=-1)
    is_directory = stat.S_ISDIR(status.st_mode)
    room = os.statvfs(path)
    return DirectoryFacts(
        path,
        exists=True,
        is_directory=is_directory,
        owner=status.st_uid,
        user=user,
        mode=stat.S_IMODE(status.st_mode),
        is_usable=os.access(path, os.R_OK | os.W_OK | os.X_OK),
        free_bytes=room.f_bavail * room.f_frsize,
        free_files=room.f_favail if room.f_files else None,
        file_system=_file_system(path),
        exposed_secrets=[name for name in SECRETS if _is_exposed(path / name)],
    )


def judge(facts: DirectoryFacts) -> Iterator[Diagnosis]:
    path = facts.path
    if not facts.exists:
        if facts.can_be_made:
            yield note(SUBJECT, f"{path} is not there yet; the first start makes it")
        else:
            yield problem(
                SUBJECT,
                f"{path} is not there, and this user may not make it",
                "make it, owned by the user that runs llamactl, or set LLAMACTL_DATA_DIRECTORY",
            )
        return
    if not facts.is_directory:
        yield problem(SUBJECT, f"{path} is no directory", "set LLAMACTL_DATA_DIRECTORY to another")
        return
    if not facts.is_usable:
        yield problem(
            SUBJECT,
            f"{path} can't be read and written by this user (uid {facts.user}; it belongs to"
            f" {'somebody else' if facts.owner < 0 else facts.owner}, mode {facts.mode:04o})",
            f"run this as its owner, or: chown -R {facts.user} {path} && chmod u=rwx {path}",
        )
        return
    yield ok(SUBJECT, f"{path}, {size(facts.free_bytes)} free")
    if facts.owner != facts.user:
        yield warning(
            SUBJECT,
            f"it belongs to uid {facts.owner}, and this is {facts.user}",
            "run llamactl and its tools as one user: what root makes there, others can't use",
        )
    if facts.mode & 0o077:
        yield warning(
            SUBJECT, f"others may look into it (mode {facts.mode:04o})", f"chmod 700 {path}"
        )
    for name in facts.exposed_secrets:
        yield problem(
            SUBJECT,
            f"the secret in {name} can be read by others",
            f"chmod 600 {path / name}, and replace the secret if others may have seen it",
        )
    yield from _judge_room(facts)


def _judge_room(facts: DirectoryFacts) -> Iterator[Diagnosis]:
    remedy = "make room; logs and models are the largest as a rule"
    if facts.free_bytes < TOO_LITTLE_BYTES:
        yield problem(SUBJECT, f"the disk is full: {size(facts.free_bytes)} are left", remedy)
    elif facts.free_bytes < LITTLE_BYTES:
        yield warning(SUBJECT, f"only {size(facts.free_bytes)} are left", remedy)
    if facts.free_files is not None and facts.free_files < TOO_FEW_FILES:
        yield problem(SUBJECT, f"only {facts.free_files} more files can be made", remedy)
    if facts.file_system.startswith(SHARED_FILE_SYSTEMS):
        yield warning(
            SUBJECT,
            f"it is on {facts.file_system}, where locks can't be relied on",
            "put it on a local disk; models may be elsewhere",
        )


@dataclass(frozen=True)
class LogFacts:
    path: Path
    total_bytes: int
    free_bytes: int
    largest: tuple[str, int] = ("", 0)


def look_at_logs(config: AppConfig) -> LogFacts | None:
    """``None`` where there is no such directory, or we may not look."""
    path = config.instances.logs_dir
    sizes: dict[str, int] = {}
    try:
        room = os.statvfs(path)
        for entry in os.scandir(path):
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat().st_blocks * 512
    except OSError:
        return None
    largest = max(sizes.items(), key=lambda pair: pair[1], default=("", 0))
    return LogFacts(path, sum(sizes.values()), room.f_bavail * room.f_frsize, largest)


def judge_logs(facts: LogFacts | None) -> Iterator[Diagnosis]:
    if facts is None:
        yield note(LOGS, "none yet")
        return
    text = f"{size(facts.total_bytes)} in {facts.path}"
    is_more_than_room = facts.total_bytes > max(facts.free_bytes, LITTLE_BYTES)
    if facts.total_bytes > MANY_LOG_BYTES or is_more_than_room:
        name, count = facts.largest
        yield warning(
            LOGS,
            f"{text}, {size(count)} of it in {name}",
            "see instances.log_rotation_max_size; a log may be truncated while it is written",
        )
    else:
        yield ok(LOGS, text)


def _is_exposed(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _file_system(path: Path) -> str:
    """The type of the file system that the path is on, as the kernel names it."""
    best, kind = "", ""
    real = f"{os.path.realpath(path)}/"
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            mount, found = line.split()[1:3]
            if real.startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
                best, kind = mount, found
    return kind
