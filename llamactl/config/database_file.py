"""Choice of the SQLite file: the Go llamactl's database keeps a file of its own.

Both programs call their database ``llamactl.db`` and keep it in the same data directory. Our tables
never go into the Go program's file, so that a newcomer can return to the Go program.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

OWN_SUFFIX = "-django"
LOCK_TIMEOUT_SECONDS = 5.0
"""How long a reading waits for the lock of a Go program that is still running."""

_OWN_TABLE = "django_migrations"
_GO_TABLES = frozenset({"instances", "api_keys"})


def own_file(configured: Path) -> Path:
    """Return the file for our tables: ``configured``, or ``llamactl-django.db`` beside it.

    1. A file that holds our tables stays the database, with the Go program's tables or without.
    2. A file beside it that exists stays the database too, even after the Go program's is gone.
    3. A file of the Go program is left alone.
    """
    tables = tables_of(configured)
    beside = configured.with_name(f"{configured.stem}{OWN_SUFFIX}{configured.suffix}")
    if _OWN_TABLE in tables:
        return configured
    if _OWN_TABLE in tables_of(beside) or tables >= _GO_TABLES:
        return beside
    return configured


def go_file(own: Path) -> Path | None:
    """Return the Go program's database that belongs to ``own_file``'s choice, if there is one."""
    candidates = [own]
    if own.stem.endswith(OWN_SUFFIX):
        stem = own.stem.removesuffix(OWN_SUFFIX)
        candidates.insert(0, own.with_name(f"{stem}{own.suffix}"))
    return next((path for path in candidates if is_go_database(path)), None)


def is_go_database(path: Path) -> bool:
    """Return whether the file holds the Go program's tables."""
    return tables_of(path) >= _GO_TABLES


def tables_of(path: Path) -> frozenset[str]:
    """Return the names of the tables in an SQLite file; none if the file can't be read."""
    try:
        if not path.is_file() or not path.stat().st_size:
            return frozenset()
    except OSError:
        return frozenset()
    # The second way reads past a lock, and past a journal that a killed program left.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(
                sqlite3.connect(
                    f"{path.absolute().as_uri()}?{mode}", timeout=LOCK_TIMEOUT_SECONDS, uri=True
                )
            ) as database:
                rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                return frozenset(str(name) for (name,) in rows)
        except (sqlite3.Error, ValueError):
            continue
    return frozenset()
