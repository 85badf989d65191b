"""Access check of the configured directories and files.

Every service loads the settings, which refuse unusable places in one sentence each: what is wrong,
the setting, and the remedy. The doctor reports the same sentences, and nothing is created here.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamactl.config.app_config import AppConfig
from llamactl.config.problems import DEFAULT, ConfigError, FieldPath, dotted
from llamactl.config.variables import VARIABLES

DATA_DIR: FieldPath = ("data_dir",)
DATABASE: FieldPath = ("database", "path")
LOGS_DIR: FieldPath = ("instances", "logs_dir")

SECRETS = ("secret_key", "admin_password")
WRITTEN = ("*.lock", "node-*.guard.log")
"""Patterns of llamactl's files in ``data_dir``: secrets are read, the others are written."""
BROKER_DIRECTORIES = ("broker", "broker/appendonlydir")
BROKER_WRITTEN = ("broker/lock", "broker/valkey.log", "broker/appendonlydir/*")
"""Patterns of the embedded broker's directories and files in ``data_dir``."""

_READ_ONLY = ("its file system is mounted read-only", "mount it for writing")
"""Reason and remedy."""

READ, WRITE, DIRECTORY = os.R_OK, os.R_OK | os.W_OK, os.R_OK | os.W_OK | os.X_OK


@dataclass(frozen=True)
class PlaceProblem:
    """An unusable directory or file, with the setting of its path and the remedy."""

    finding: str
    remedy: str
    stops_instances: bool = False
    """Whether llamactl starts, but no instance can."""

    def __str__(self) -> str:
        return f"{self.finding}: {self.remedy}"


def check_places(config: AppConfig) -> None:
    """Create the data directory, and raise ConfigError if a place keeps llamactl from starting."""
    found = list(unusable_places(config))
    if not found:
        try:
            config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:  # a file system with rules of its own, such as /proc
            problem = PlaceProblem(f"{config.data_dir}: {error.strerror}", "create it as root")
            found = [_named(config, DATA_DIR, problem)]
    if found:
        raise ConfigError(map(str, found), config.config_warnings)


def unusable_places(config: AppConfig) -> Iterator[PlaceProblem]:
    """Yield the problem of each setting with an unusable place; at most one each."""
    data_dir, database = config.data_dir, config.database
    if problem := _unusable_directory(data_dir):
        yield _named(config, DATA_DIR, problem)
        return
    is_elsewhere = database.path.parent != data_dir
    files = list(_data_files(config))
    if database.url is None and not is_elsewhere:
        files += [(path, WRITE) for path in _database_files(database.path)]
    if problem := _unusable_files(files, data_dir):
        yield _named(config, DATA_DIR, problem)
    if database.url is None and is_elsewhere:
        files = [(path, WRITE) for path in _database_files(database.path)]
        parent = database.path.parent
        if problem := _unusable_directory(parent) or _unusable_files(files, database.path):
            yield _named(config, DATABASE, problem)


def _data_files(config: AppConfig) -> Iterator[tuple[Path, int]]:
    """Yield llamactl's files in the data directory, with the access needed."""
    wanted = [*((name, READ) for name in SECRETS), *((name, WRITE) for name in WRITTEN)]
    if not config.auth.management_keys:
        wanted.append(("management_key", READ))
    if config.redis.url is None:
        wanted += ((name, DIRECTORY) for name in BROKER_DIRECTORIES)
        wanted.append(("broker/password", READ))
        wanted += ((name, WRITE) for name in BROKER_WRITTEN)
    for name, need in wanted:
        for path in sorted(config.data_dir.glob(name)):
            yield path, need


def _database_files(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))


def place_warnings(config: AppConfig) -> Iterator[PlaceProblem]:
    """Yield each place without which llamactl runs, but instances can't start.

    Another owner of the data directory is a warning for root: the owner can't use root's files.
    """
    path = config.instances.logs_dir
    if not config.instances.auto_create_dirs and not _exists(path):
        problem: PlaceProblem | None = PlaceProblem(
            f"{path} does not exist, and instances.auto_create_dirs is false", "create it"
        )
    else:
        logs = ((log, WRITE) for log in sorted(path.glob("*.log")))
        problem = _unusable_directory(path) or _unusable_files(logs, path)
    if problem:
        named = _named(config, LOGS_DIR, problem)
        yield PlaceProblem(
            f"instances can't start: {named.finding}", named.remedy, stops_instances=True
        )
    try:
        owner = config.data_dir.stat().st_uid
    except OSError:
        return
    if os.geteuid() == 0 and owner != 0:
        user = _user(owner)
        yield PlaceProblem(
            f"data_dir {config.data_dir} belongs to {user}, and this process runs as root; files"
            f" that root creates there can't be used by {user}",
            f"run llamactl as {user}",
        )


def _named(config: AppConfig, setting: FieldPath, problem: PlaceProblem) -> PlaceProblem:
    """Add the setting's origin and key to a problem, and the other way out: another place."""
    key = dotted(setting)
    variable = next(name for name, field in reversed(VARIABLES.items()) if field == key)
    origin = config.origin(setting)
    source = "" if origin == DEFAULT else f"{origin}: "
    return PlaceProblem(
        f"{source}{key}: {problem.finding}",
        f"{problem.remedy}; or set {key} (or {variable}) to a place that"
        f" {_user(os.geteuid())} can use",
    )


def _unusable_directory(path: Path) -> PlaceProblem | None:
    """Return why a directory can't be used or created; None if it can."""
    existing = next(each for each in (path, *path.parents) if _exists(each))
    try:
        is_directory = existing.is_dir()
    except PermissionError:
        is_directory = True  # of unknown kind, in a directory that this user can't enter
    if not is_directory:
        what = "is" if existing == path else f"can't be created, since {existing} is"
        return PlaceProblem(f"{path} {what} not a directory", "move that file away")
    need = DIRECTORY if existing == path else os.W_OK | os.X_OK
    if os.access(existing, need, effective_ids=True):
        return None
    reason, remedy = _obstacle(existing, path)
    if existing == path:
        return PlaceProblem(f"{path} can't be read and written, since {reason}", remedy)
    if (reason, remedy) != _READ_ONLY:
        remedy = f"create it as root ('install -d -m 700 -o {os.geteuid()} {path}')"
    return PlaceProblem(
        f"{path} does not exist and can't be created in {existing}, since {reason}", remedy
    )


def _unusable_files(files: Iterable[tuple[Path, int]], above: Path) -> PlaceProblem | None:
    """Return why existing files can't be used, by the example of the first; None if they can.

    The remedy for all of them is to change the owner of ``above``.
    """
    found = [
        (path, need)
        for path, need in files
        if _exists(path) and not os.access(path, need, effective_ids=True)
    ]
    if not found:
        return None
    path, need = found[0]
    reason, remedy = _obstacle(path, above)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    verb = "read" if need == READ else "read and written"
    return PlaceProblem(f"{path}{more} can't be {verb}, since {reason}", remedy)


def _obstacle(path: Path, above: Path) -> tuple[str, str]:
    """Return why this user can't use ``path``, by owner and mode, and the remedy."""
    user = _user(os.geteuid())
    try:
        status = path.stat()
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return (
            f"{user} can't enter a directory above it",
            "run llamactl as the owner of that directory",
        )
    if is_read_only:
        return _READ_ONLY
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid == os.geteuid():
        wanted = "u+rwx" if stat.S_ISDIR(status.st_mode) else "u+rw"
        return f"its mode is {mode}", f"chmod {wanted} {path}"
    owner = _user(status.st_uid)
    return (
        f"it belongs to {owner} (mode {mode}) and this process runs as {user}",
        f"run llamactl as {owner}, or 'chown -R {os.geteuid()} {above}'",
    )


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
