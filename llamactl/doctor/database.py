"""Does the database answer, whole and up to date?"""

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
from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning

SUBJECT = "database"
PATIENCE_SECONDS = 2
SLOW_SECONDS = 1.0
SHOWN = 3


@dataclass(frozen=True)
class DatabaseFacts:
    place: str
    is_sqlite: bool = True
    exists: bool = True
    error: str = ""
    seconds: float = 0.0
    damage: str = ""
    """What SQLite's own check found."""
    lock_error: str = ""
    missing_migrations: list[str] = field(default_factory=list)
    unknown_migrations: list[str] = field(default_factory=list)


def be_impatient() -> None:
    """Let no connection of this process wait long: the doctor's answer is wanted now."""
    database = connections["default"]
    options = database.settings_dict.setdefault("OPTIONS", {})
    key = "timeout" if database.vendor == "sqlite" else "connect_timeout"
    options[key] = PATIENCE_SECONDS


def look(config: AppConfig) -> DatabaseFacts:
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
                said = str(cursor.fetchone()[0])
                damage = "" if said == "ok" else said
                lock_error = _lock_error(cursor)
        loader = MigrationLoader(None, ignore_no_migrations=True)
        known = {f"{app}.{name}" for app, name in loader.disk_migrations}
        rows = MigrationRecorder(database).applied_migrations()
        # What was squashed away, or is of an app that is gone, is nothing to worry about.
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


def judge(facts: DatabaseFacts) -> Iterator[Diagnosis]:
    if not facts.exists:
        yield note(SUBJECT, f"{facts.place} is not there yet; the first start makes it")
        return
    if facts.error:
        yield problem(SUBJECT, f"{facts.place}: {facts.error}", _remedy(facts))
        return
    if facts.damage:
        yield problem(
            SUBJECT,
            f"{facts.place} is damaged: {facts.damage}",
            "stop llamactl and put a backup back, or: sqlite3 … .recover",
        )
        return
    if facts.missing_migrations:
        yield problem(
            SUBJECT,
            f"the tables are not up to date; missing: {_some(facts.missing_migrations)}",
            "restart llamactl, which brings them up to date, or run 'manage.py migrate'",
        )
    elif facts.unknown_migrations:
        yield warning(
            SUBJECT,
            f"it is of a newer llamactl; unknown here: {_some(facts.unknown_migrations)}",
            "run the newer llamactl, or put the backup from before the upgrade back",
        )
    if facts.lock_error:
        yield problem(
            SUBJECT,
            f"{facts.place} can't be written for {PATIENCE_SECONDS} s: {facts.lock_error}",
            "find out who holds it ('fuser -v' on the file): a shell or a backup in a transaction?"
            " A file that is read-only needs another owner or mode",
        )
    elif facts.seconds > SLOW_SECONDS:
        yield warning(
            SUBJECT, f"{facts.place} took {facts.seconds:.1f} s to answer", "is its disk busy?"
        )
    else:
        yield ok(SUBJECT, f"{facts.place}, {facts.seconds * 1000:.0f} ms")


def _remedy(facts: DatabaseFacts) -> str:
    if not facts.is_sqlite:
        return "is PostgreSQL up, and is database.url right?"
    if "locked" in facts.error:
        return "find out who holds it ('fuser -v' on the file)"
    if "not a database" in facts.error or "malformed" in facts.error:
        return "stop llamactl and put a backup back"
    return "may this user read and write the file and its directory, and is there room?"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
