"""The Go program's database keeps its file; ours lies beside it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llamactl.config import AppConfig, database_file
from llamactl.config.database_file import go_file
from tests.support.go_llamactl import copy_database


def make_own(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE django_migrations (id INTEGER)")
        database.commit()


def path_of(data_dir: Path, **database: object) -> Path:
    return AppConfig.model_validate({"data_dir": data_dir, "database": database}).database.path


def test_an_empty_directory_gets_the_configured_file(tmp_path: Path) -> None:
    assert path_of(tmp_path) == tmp_path / "llamactl.db"
    assert path_of(tmp_path / "missing") == tmp_path / "missing" / "llamactl.db"
    assert go_file(tmp_path / "llamactl.db") is None


def test_a_go_database_is_left_alone(tmp_path: Path) -> None:
    go = copy_database(tmp_path)
    before = (go.read_bytes(), go.stat().st_mode)
    assert path_of(tmp_path) == tmp_path / "llamactl-django.db"
    assert (go.read_bytes(), go.stat().st_mode) == before
    assert go_file(path_of(tmp_path)) == go


def test_a_file_of_another_name_gets_ours_beside_it(tmp_path: Path) -> None:
    go = copy_database(tmp_path, name="mine.sqlite3")
    own = path_of(tmp_path, path="mine.sqlite3")
    assert own == tmp_path / "mine-django.sqlite3"
    assert go_file(own) == go


def test_a_file_that_holds_our_tables_too_stays_the_database(tmp_path: Path) -> None:
    go = copy_database(tmp_path)
    make_own(go)
    assert path_of(tmp_path) == go
    assert go_file(go) == go


def test_our_file_stays_when_the_go_database_is_removed(tmp_path: Path) -> None:
    go = copy_database(tmp_path)
    own = path_of(tmp_path)
    make_own(own)
    go.unlink()
    assert path_of(tmp_path) == own
    assert go_file(own) is None


def test_a_database_that_the_go_program_writes_at_this_moment_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "LOCK_TIMEOUT_SECONDS", 0.01)
    go = copy_database(tmp_path)
    with closing(sqlite3.connect(go, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert path_of(tmp_path) == tmp_path / "llamactl-django.db"


def test_a_database_in_write_ahead_mode_is_recognised(tmp_path: Path) -> None:
    # As the Go program leaves it when it is killed: its tables may be in the -wal file alone.
    made = tmp_path / "made"
    made.mkdir()
    path = made / "llamactl.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE instances (id INTEGER)")
        database.execute("CREATE TABLE api_keys (id INTEGER)")
        database.commit()
        left = tmp_path / "left"
        left.mkdir()
        for file in made.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, left)
    assert path_of(left) == left / "llamactl-django.db"


@pytest.mark.parametrize(
    "content", [b"", b"no database at all", b"SQLite format 3\x00" + b"\x01" * 99]
)
def test_any_other_file_stays_the_configured_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "llamactl.db").write_bytes(content)
    assert path_of(tmp_path) == tmp_path / "llamactl.db"


def test_a_directory_in_the_place_of_the_file_is_no_go_database(tmp_path: Path) -> None:
    (tmp_path / "llamactl.db").mkdir()
    assert path_of(tmp_path) == tmp_path / "llamactl.db"
