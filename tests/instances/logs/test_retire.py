"""A log belongs to its instance, not to the name."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from instances import lifecycle
from instances.logs.files import log_path
from instances.logs.retire import retire_log
from llamactl.config import current

NAMES = ("a.log", "a.log.1.gz", "a.log.2", "a.log.rotating")


def test_log_and_segments_are_put_aside_and_others_stay(tmp_path: Path) -> None:
    others = ("b.log", "a.log.txt", "a.b.log", "aa.log", "a.log.x")
    for name in (*NAMES, *others):
        (tmp_path / name).write_text(name)
    retire_log(tmp_path / "a.log")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(others)
    aside = {path.name: path.read_text() for path in (tmp_path / "deleted").iterdir()}
    assert aside == {name: name for name in NAMES[:3]}


def test_second_log_of_a_name_replaces_the_first_one(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "a.log").write_text(text)
        if text == "first":
            (tmp_path / "a.log.7").write_text(text)
        retire_log(tmp_path / "a.log")
    retire_log(tmp_path / "a.log")
    assert [path.read_text() for path in (tmp_path / "deleted").iterdir()] == ["second"]


def test_nothing_to_put_aside_is_no_error(tmp_path: Path) -> None:
    retire_log(tmp_path / "missing" / "a.log")
    retire_log(tmp_path / "a.log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
@pytest.mark.parametrize("is_left_behind", [False, True])
def test_new_instance_of_a_deleted_ones_name_has_an_empty_log(
    api: Client, django_capture_on_commit_callbacks: object, is_left_behind: bool
) -> None:
    path = log_path(current(), "again")
    path.parent.mkdir(parents=True, exist_ok=True)
    lifecycle.create("again", {}, cause="test")
    path.write_text("a prompt of the first one\n")
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        lifecycle.delete("again", cause="test")
    assert not path.exists()
    if is_left_behind:  # by a worker that was killed, or by an earlier release
        path.write_text("a prompt of the first one\n")
    lifecycle.create("again", {}, cause="test")
    for query in ("", "?lines=10"):
        assert api.get(f"/api/v1/instances/again/logs{query}").content == b""


@pytest.mark.django_db
def test_imported_instance_keeps_its_log() -> None:
    path = log_path(current(), "imported")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of the Go program\n")
    lifecycle.create("imported", {}, cause="import", pk=77)
    assert path.exists()
    path.unlink()
