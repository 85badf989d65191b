"""Check of the database: reachable, undamaged, writable and migrated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import django.db
from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from llamactl.config import AppConfig
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning

SUBJECT = "database"
TIMEOUT_SECONDS = 2
SLOW_SECONDS = 1.0
MAX_LISTED = 3


@dataclass(frozen=True)
class DatabaseFacts:
    place: str
    is_sqlite: bool = True
    exists: bool = True
    error: str = ""
    seconds: float = 0.0
    damage: str = ""
    """The first error of SQLite's own check."""
    lock_error: str = ""
    missing_migrations: list[str] = field(default_factory=list)
    unknown_migrations: list[str] = field(default_factory=list)


def shorten_timeouts() -> None:
    """Shorten the timeouts of this process's connections, so that the doctor answers soon."""
    database = connections["default"]
    options = database.settings_dict.setdefault("OPTIONS", {})
    key = "timeout" if database.vendor == "sqlite" else "connect_timeout"
    options[key] = TIMEOUT_SECONDS


def collect(config: AppConfig) -> DatabaseFacts:
    database = connections["default"]
    is_sqlite = database.vendor == "sqlite"
    place = str(database.settings_dict["NAME"])
    if not is_sqlite:
        place = f"{place} at {database.settings_dict.get('HOST') or 'localhost'}"
    if is_sqlite and not config.database.path.exists():
        return DatabaseFacts(place, exists=False)
    damage = lock_error = ""
    began = time.monotonic()
    try:
        with database.cursor() as cursor:
            cursor.execute("SELECT 1")
            seconds = time.monotonic() - began
            if is_sqlite:
                cursor.execute("PRAGMA quick_check(1)")
                result = str(cursor.fetchone()[0])
                damage = "" if result == "ok" else result
                lock_error = _lock_error(cursor)
        loader = MigrationLoader(None, ignore_no_migrations=True)
        known = {f"{app}.{name}" for app, name in loader.disk_migrations}
        rows = MigrationRecorder(database).applied_migrations()
        # Rows of removed apps are ignored.
        ours = {app for app, _ in loader.disk_migrations}
        applied = {f"{app}.{name}" for app, name in rows if app in ours}
    except django.db.Error as error:
        return DatabaseFacts(place, is_sqlite, error=str(error).strip() or type(error).__name__)
    finally:
        database.close()
    return DatabaseFacts(
        place,
        is_sqlite,
        seconds=seconds,
        damage=damage,
        lock_error=lock_error,
        missing_migrations=sorted(known - applied),
        unknown_migrations=sorted(applied - known),
    )


def _lock_error(cursor: CursorWrapper) -> str:
    try:
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
    except django.db.Error as error:
        return str(error)
    return ""


def diagnose(facts: DatabaseFacts) -> Iterator[Diagnosis]:
    if not facts.exists:
        yield note(SUBJECT, f"{facts.place} does not exist yet; the first start creates it")
    elif facts.error:
        yield problem(SUBJECT, f"{facts.place}: {facts.error}", _remedy(facts))
    elif facts.damage:
        yield problem(
            SUBJECT,
            f"{facts.place} is damaged: {facts.damage}",
            "stop llamactl and restore a backup, or: sqlite3 … .recover",
        )
    else:
        yield from _diagnose_migrations(facts)
        yield _diagnose_access(facts)


def diagnose_go_database(notice: str) -> Iterator[Diagnosis]:
    """Report what the importer says of a Go database beside ours; an empty notice is nothing."""
    if notice:
        found, _, remedy = notice.partition(": ")
        yield note(SUBJECT, found, remedy or "manage.py import_llamactl imports it")


def _diagnose_migrations(facts: DatabaseFacts) -> Iterator[Diagnosis]:
    if facts.missing_migrations:
        yield problem(
            SUBJECT,
            f"the tables are not up to date; missing migrations: {_some(facts.missing_migrations)}",
            "restart llamactl, which migrates the database, or run 'manage.py migrate'",
        )
    elif facts.unknown_migrations:
        yield warning(
            SUBJECT,
            f"migrated by a newer llamactl; unknown here: {_some(facts.unknown_migrations)}",
            "run the newer llamactl, or restore the backup from before the upgrade",
        )


def _diagnose_access(facts: DatabaseFacts) -> Diagnosis:
    if facts.lock_error:
        return problem(
            SUBJECT,
            f"{facts.place} can't be written for {TIMEOUT_SECONDS} s: {facts.lock_error}",
            "find the process that holds the lock ('fuser -v' on the file), such as a shell or a"
            " backup in a transaction; if the file is read-only, change its owner or mode",
        )
    if facts.seconds > SLOW_SECONDS:
        text = f"{facts.place} took {facts.seconds:.1f} s to answer"
        return warning(SUBJECT, text, "check the load of its disk")
    return ok(SUBJECT, f"{facts.place}, {facts.seconds * 1000:.0f} ms")


def _remedy(facts: DatabaseFacts) -> str:
    if not facts.is_sqlite:
        return "check that PostgreSQL runs, and database.url"
    if "locked" in facts.error:
        return "find the process that holds the lock ('fuser -v' on the file)"
    if "not a database" in facts.error or "malformed" in facts.error:
        return "stop llamactl and restore a backup"
    return "check this user's access to the file and its directory, and the free space"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
