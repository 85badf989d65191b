"""Failures of the database: which are told with a remedy, and where they are told."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError
from django.test import AsyncClient

from llamactl.admin.login import limits
from llamactl.core.database_errors import DAMAGED, FULL, NOT_WRITABLE, to_unavailable
from llamactl.core.errors import DatabaseUnavailable
from llamactl.logging import LineFormatter

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def fill(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "full.db")) as database:
        database.execute("CREATE TABLE rows (text TEXT)")
        database.execute("PRAGMA max_page_count = 2")
        database.execute("INSERT INTO rows VALUES (?)", ["x" * 100_000])


def write_read_only(directory: Path) -> None:
    path = directory / "whole.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE rows (text TEXT)")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.execute("DROP TABLE rows")


def open_missing(directory: Path) -> None:
    sqlite3.connect(directory / "removed" / "x.db")


def open_other_file(directory: Path) -> None:
    (directory / "other.db").write_text("no database" * 100)
    with closing(sqlite3.connect(directory / "other.db")) as database:
        database.execute("SELECT * FROM rows")


def failure_of(cause: Callable[[Path], None], directory: Path) -> DatabaseError:
    """The error of SQLite as Django raises it."""
    try:
        cause(directory)
    except sqlite3.DatabaseError as error:
        kind = OperationalError if isinstance(error, sqlite3.OperationalError) else DatabaseError
        wrapped = kind(*error.args)
        wrapped.__cause__ = error
        return wrapped
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("cause", "details"),
    [
        (fill, FULL),
        (write_read_only, NOT_WRITABLE),
        (open_missing, NOT_WRITABLE),
        (open_other_file, DAMAGED),
    ],
)
def test_a_failure_is_told_with_its_remedy(
    tmp_path: Path, cause: Callable[[Path], None], details: str
) -> None:
    refusal = to_unavailable(failure_of(cause, tmp_path))
    assert refusal is not None
    assert refusal.details == details


def test_postgresql_tells_a_full_disk_too() -> None:
    class DiskFull(Exception):
        sqlstate = "53100"

    error = OperationalError("could not extend file")
    error.__cause__ = DiskFull()
    refusal = to_unavailable(error)
    assert refusal is not None
    assert refusal.details == FULL


def test_a_defect_stays_a_defect() -> None:
    assert to_unavailable(IntegrityError("UNIQUE constraint failed")) is None
    assert to_unavailable(ValueError()) is None
    assert to_unavailable(None) is None


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure_of(fill, tmp_path)

    def count(*_: object) -> Any:
        raise error

    monkeypatch.setattr(limits, "count", count)


@pytest.mark.django_db
@pytest.mark.usefixtures("full_disk")
async def test_a_page_that_needs_the_full_disk_says_so(caplog: pytest.LogCaptureFixture) -> None:
    client = AsyncClient(raise_request_exception=False)
    form = {"username": "admin", "password": "x", "next": "/admin/"}
    page = await client.post("/admin/login/", form, headers={"Accept": BROWSER})
    assert page.status_code == 503
    assert "free space there" in page.content.decode()
    document = await client.post("/admin/login/", form)
    assert document.status_code == 503
    assert document.json() == {"error": DatabaseUnavailable.code, "details": FULL}
    # The log should have a line for each request, and no traceback.
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    lines = [LineFormatter().format(record) for record in records]
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("Service Unavailable: /admin/login/ (database or disk is full)")
