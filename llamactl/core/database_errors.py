"""Failures of the database that an operator can remedy, as an error with the remedy."""

from __future__ import annotations

import sqlite3

from django.db import DatabaseError, InterfaceError, OperationalError

from llamactl.core.errors import DatabaseUnavailable

FULL = "the disk of the database is full; free space there, and try again"
NOT_WRITABLE = (
    "the database can't be opened for writing: it is read-only, or its file was moved or removed;"
    " run 'manage.py doctor' on the host"
)
FAILING_DISK = "the disk of the database fails; see the system's log on the host"
DAMAGED = "the database's file is damaged; restore it from a backup"

_SQLITE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: NOT_WRITABLE,
    sqlite3.SQLITE_PERM: NOT_WRITABLE,
    sqlite3.SQLITE_IOERR: FAILING_DISK,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
_POSTGRESQL = {
    "53100": FULL,
    "25006": NOT_WRITABLE,
    "58030": FAILING_DISK,
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}
"""SQLSTATEs: disk_full, read_only_sql_transaction, io_error, data_corrupted, index_corrupted."""


def to_unavailable(error: BaseException | None) -> DatabaseUnavailable | None:
    """Translate a failure of the database; None for a defect of ours, and for no database error."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    cause = error.__cause__ or error
    # SQLite's extended codes have the reason above the lowest byte.
    known = _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF) or _POSTGRESQL.get(
        getattr(cause, "sqlstate", None) or ""
    )
    if known is not None:
        return DatabaseUnavailable(known)
    is_away = isinstance(error, OperationalError | InterfaceError)
    return DatabaseUnavailable() if is_away else None
