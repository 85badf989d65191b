"""Checks of the data directory and the logs: access, privacy and free space."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llamactl.config import AppConfig
from llamactl.config.places import PlaceProblem
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, size, warning

SUBJECT = "data directory"
LOGS = "logs"
LOW_SPACE_BYTES = 2 * 2**30
NO_SPACE_BYTES = 200 * 2**20
MIN_FREE_FILES = 1000
MAX_LOG_BYTES = 10 * 2**30
SECRETS = ("secret_key", "management_key", "admin_password", "broker/password")
SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "ceph", "glusterfs")
"""File systems on which locks and SQLite's shared memory are unreliable."""


@dataclass(frozen=True)
class DirectoryFacts:
    path: Path
    exists: bool
    is_directory: bool = True
    owner: int = 0
    user: int = 0
    mode: int = 0o700
    is_usable: bool = True
    """Whether this user may read, write and enter the directory."""
    can_be_created: bool = True
    free_bytes: int = 0
    free_files: int | None = None
    file_system: str = ""
    exposed_secrets: list[str] = field(default_factory=list)


def collect(path: Path) -> DirectoryFacts:
    user = os.getuid()
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        above = next((each for each in path.parents if each.exists()), Path("/"))
        can_be_created = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        return DirectoryFacts(path, exists=False, user=user, can_be_created=can_be_created)
    except PermissionError:
        return DirectoryFacts(path, exists=True, user=user, is_usable=False, owner=-1)
    is_directory = stat.S_ISDIR(status.st_mode)
    space = os.statvfs(path)
    return DirectoryFacts(
        path,
        exists=True,
        is_directory=is_directory,
        owner=status.st_uid,
        user=user,
        mode=stat.S_IMODE(status.st_mode),
        is_usable=os.access(path, os.R_OK | os.W_OK | os.X_OK),
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        file_system=_file_system(path),
        exposed_secrets=[name for name in SECRETS if _is_exposed(path / name)],
    )


def diagnose(facts: DirectoryFacts) -> Iterator[Diagnosis]:
    if not facts.exists and facts.can_be_created:
        yield note(SUBJECT, f"{facts.path} does not exist yet; the first start creates it")
    if not (facts.exists and facts.is_directory and facts.is_usable):
        return  # see diagnose_places
    yield ok(SUBJECT, f"{facts.path}, {size(facts.free_bytes)} free")
    if facts.owner != facts.user and facts.user != 0:  # root's case: places.place_warnings
        yield warning(
            SUBJECT,
            f"the directory belongs to uid {facts.owner}, and this user is uid {facts.user}",
            "run llamactl and its tools as one user: other users can't use files of root",
        )
    if facts.mode & 0o077:
        yield warning(
            SUBJECT,
            f"other users can enter it (mode {facts.mode:04o})",
            f"chmod 700 {facts.path}",
        )
    for name in facts.exposed_secrets:
        yield problem(
            SUBJECT,
            f"the secret in {name} can be read by other users",
            f"chmod 600 {facts.path / name}, and replace the secret if it may have been read",
        )
    yield from _diagnose_space(facts)


def diagnose_places(
    unusable: Iterable[PlaceProblem], warnings: Iterable[PlaceProblem]
) -> Iterator[Diagnosis]:
    """Report files and directories that this user can't use, or that other users can't."""
    for each in unusable:
        yield problem(SUBJECT, each.finding, each.remedy)
    for each in warnings:
        level = problem if each.stops_instances else warning
        yield level(SUBJECT, each.finding, each.remedy)


def _diagnose_space(facts: DirectoryFacts) -> Iterator[Diagnosis]:
    remedy = "free disk space; logs and models usually take the most"
    if facts.free_bytes < NO_SPACE_BYTES:
        yield problem(SUBJECT, f"the disk is full: {size(facts.free_bytes)} are left", remedy)
    elif facts.free_bytes < LOW_SPACE_BYTES:
        yield warning(SUBJECT, f"only {size(facts.free_bytes)} are left", remedy)
    if facts.free_files is not None and facts.free_files < MIN_FREE_FILES:
        yield problem(SUBJECT, f"only {facts.free_files} more files can be created", remedy)
    if facts.file_system.startswith(SHARED_FILE_SYSTEMS):
        yield warning(
            SUBJECT,
            f"the directory is on {facts.file_system}, where locks are unreliable",
            "move it to a local disk; models may stay elsewhere",
        )


@dataclass(frozen=True)
class LogFacts:
    path: Path
    total_bytes: int
    free_bytes: int
    largest: tuple[str, int] = ("", 0)


def collect_logs(config: AppConfig) -> LogFacts | None:
    """Collect the sizes of the logs; ``None`` if the directory is missing or unreadable."""
    path = config.instances.logs_dir
    sizes: dict[str, int] = {}
    try:
        space = os.statvfs(path)
        for entry in os.scandir(path):
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat().st_blocks * 512
    except OSError:
        return None
    largest = max(sizes.items(), key=lambda pair: pair[1], default=("", 0))
    return LogFacts(path, sum(sizes.values()), space.f_bavail * space.f_frsize, largest)


def diagnose_logs(facts: LogFacts | None) -> Iterator[Diagnosis]:
    if facts is None:
        yield note(LOGS, "none yet")
        return
    text = f"{size(facts.total_bytes)} in {facts.path}"
    exceeds_free_space = facts.total_bytes > max(facts.free_bytes, LOW_SPACE_BYTES)
    if facts.total_bytes > MAX_LOG_BYTES or exceeds_free_space:
        name, count = facts.largest
        yield warning(
            LOGS,
            f"{text}, {size(count)} of it in {name}",
            "see instances.log_rotation_max_size; a log in use may be truncated",
        )
    else:
        yield ok(LOGS, text)


def newest_file(path: Path) -> float:
    """Return the latest modification time of the files in a directory, as unix time; 0 if none."""
    newest = 0.0
    with suppress(OSError):
        for entry in os.scandir(path):
            with suppress(OSError):
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
    return newest


def _is_exposed(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _file_system(path: Path) -> str:
    """Find the type of the path's file system in /proc/mounts."""
    best, kind = "", ""
    real = f"{os.path.realpath(path)}/"
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            mount, found = line.split()[1:3]
            if real.startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
                best, kind = mount, found
    return kind
