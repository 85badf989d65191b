"""Reader of the Go llamactl's SQLite database, in each of its schema's versions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamactl.config.database_file import LOCK_TIMEOUT_SECONDS, is_go_database


class UnreadableGoDatabase(Exception):
    """A file that is no database of the Go llamactl, or a file that can't be read."""


@dataclass(frozen=True)
class GoInstance:
    """A row of ``instances``."""

    id: int
    name: str
    status: str
    created_at: int
    options: Mapping[str, object] | None
    """The options document; None if it is no JSON object."""


@dataclass(frozen=True)
class GoPermission:
    """A row of ``key_permissions``. The two flags came with the schema's second version."""

    instance_id: int
    can_start: bool = True
    can_evict: bool = True


@dataclass(frozen=True)
class GoKey:
    """A row of ``api_keys`` with its permissions."""

    id: int
    name: str
    argon2: str
    user_id: str
    permission_mode: str
    expires_at: int | None
    created_at: int
    last_used_at: int | None
    is_enabled: bool
    permissions: tuple[GoPermission, ...]


@dataclass(frozen=True)
class GoDatabase:
    """The whole content of a database."""

    path: Path
    instances: tuple[GoInstance, ...]
    keys: tuple[GoKey, ...]


def read(path: Path) -> GoDatabase:
    """Read a Go database, which is opened for reading only. Raises UnreadableGoDatabase."""
    if not path.exists():
        raise UnreadableGoDatabase(f"{path} does not exist")
    if not is_go_database(path):
        raise UnreadableGoDatabase(
            f"{path} is no database of the Go llamactl: it has no tables instances and api_keys"
        )
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, timeout=LOCK_TIMEOUT_SECONDS, uri=True)) as database:
            database.row_factory = sqlite3.Row
            instances = [_instance(row) for row in _rows(database, "instances")]
            permissions: dict[int, list[GoPermission]] = {}
            for row in _rows(database, "key_permissions"):
                if row.get("can_infer", 1):
                    permissions.setdefault(row["key_id"], []).append(_permission(row))
            keys = [
                _key(row, permissions.get(row["id"], [])) for row in _rows(database, "api_keys")
            ]
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        raise UnreadableGoDatabase(f"{path} can't be read: {error}") from error
    return GoDatabase(path, tuple(instances), tuple(keys))


def _rows(database: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """Return a table's rows in the order of their insertion; none if there is no such table."""
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    if table not in {name for (name,) in names}:
        return []
    query = f"SELECT * FROM {table} ORDER BY rowid"  # noqa: S608 - a name of this module
    return [dict(row) for row in database.execute(query)]


def _instance(row: Mapping[str, Any]) -> GoInstance:
    try:
        options = json.loads(row["options_json"])
    except (ValueError, RecursionError):
        options = None
    return GoInstance(
        id=row["id"],
        name=str(row["name"]),
        status=str(row["status"]),
        created_at=int(row["created_at"]),
        options=options if isinstance(options, dict) else None,
    )


def _permission(row: Mapping[str, Any]) -> GoPermission:
    return GoPermission(
        instance_id=row["instance_id"],
        can_start=bool(row.get("can_start", 1)),
        can_evict=bool(row.get("can_evict", 1)),
    )


def _key(row: Mapping[str, Any], permissions: list[GoPermission]) -> GoKey:
    return GoKey(
        id=row["id"],
        name=str(row["name"]),
        argon2=str(row["key_hash"]),
        user_id=str(row.get("user_id") or "system"),
        permission_mode=str(row["permission_mode"]),
        expires_at=row.get("expires_at"),
        created_at=int(row["created_at"]),
        last_used_at=row.get("last_used_at"),
        is_enabled=bool(row.get("enabled", 1)),
        permissions=tuple(permissions),
    )
