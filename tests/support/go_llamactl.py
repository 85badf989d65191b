"""Databases of the Go llamactl, made from the one in ``tests/data/go``."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.paths import DATA

GO_DATABASE = DATA / "go" / "llamactl.db"


def go_keys() -> dict[str, str]:
    """The plain text of the keys in the database, by name."""
    lines = (DATA / "go" / "keys.jsonl").read_text().splitlines()
    return {document["name"]: document["key"] for document in map(json.loads, lines)}


def copy_database(directory: Path, *statements: str, name: str = "llamactl.db") -> Path:
    """Copy the database into a directory, and change the copy by SQL."""
    path = directory / name
    shutil.copyfile(GO_DATABASE, path)
    path.chmod(0o644)
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


NEWER_SCHEMA = (
    "ALTER TABLE key_permissions ADD COLUMN can_start INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE key_permissions ADD COLUMN can_evict INTEGER NOT NULL DEFAULT 1",
    "UPDATE schema_migrations SET version = 2",
)
"""The schema's second version."""
