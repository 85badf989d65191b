"""Concurrent processes create one secret, which other users can't read."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from llamactl.core import secret_files
from llamactl.core.secret_files import read_or_create_secret


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def not_called() -> str:
    raise AssertionError("a second secret was made")


def test_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert read_or_create_secret(path, lambda: "first\n") == "first"
    assert read_or_create_secret(path, not_called) == "first"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_missing_directories_are_private(tmp_path: Path) -> None:
    read_or_create_secret(tmp_path / "a/b/secret", lambda: "s")
    assert [mode_of(tmp_path / name) for name in ("a", "a/b")] == [0o700, 0o700]


def test_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        read_or_create_secret(tmp_path / "a/secret", lambda: "s")
    finally:
        os.umask(before)
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "a/secret")) == (0o700, 0o600)


def test_blanks_around_a_secret_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(" \ts\r\n\n")
    path.chmod(0o600)
    assert read_or_create_secret(path, not_called) == "s"


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n", b"\0" * 40])
def test_empty_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_or_create_secret(path, lambda: "new") == "new"
    assert path.read_text() == "new\n"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666, 0o604])
def test_open_file_is_tightened_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = tmp_path / "secret"
    path.write_text("s")
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert read_or_create_secret(path, not_called) == "s"
    assert mode_of(path) == 0o600
    assert f"{path} was open to other users; its mode is now 0600" in caplog.text


def test_open_file_of_another_owner_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "secret"
    path.write_text("s")
    path.chmod(0o644)
    monkeypatch.setattr(os, "fchmod", refused)
    assert read_or_create_secret(path, not_called) == "s"
    assert f"{path} is open to other users, and stays so: Operation not permitted" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb", "must be one line of printable text"),
        (b"a\0b", "must be one line of printable text"),
        (b"\xff", "must hold UTF-8 text"),
        (b"x" * 5000, "must hold one secret of at most 4096 bytes"),
    ],
)
def test_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_or_create_secret(path, not_called)
    assert path.read_bytes() == content


@pytest.mark.timeout(10)
def test_fifo_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret", 0o600)
    with pytest.raises(ValueError, match="must be a regular file"):
        read_or_create_secret(tmp_path / "secret", not_called)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        read_or_create_secret(tmp_path, not_called)


def test_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="is it a broken link"):
        read_or_create_secret(tmp_path / "secret", lambda: "s")
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("made", ["", " \n", "a\nb"])
def test_a_new_secret_that_is_not_one_line_is_refused(tmp_path: Path, made: str) -> None:
    with pytest.raises(ValueError, match="the new secret"):
        read_or_create_secret(tmp_path / "secret", lambda: made)
    assert os.listdir(tmp_path) == []


def test_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        read_or_create_secret(tmp_path / "secret", lambda: "s")
    assert os.listdir(tmp_path) == []


def test_loser_of_the_race_takes_the_winners_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"

    def make_too_late() -> str:
        assert read_or_create_secret(path, lambda: "winner") == "winner"
        return "loser"

    assert read_or_create_secret(path, make_too_late) == "winner"
    assert os.listdir(tmp_path) == ["secret"]


def test_loser_does_not_replace_the_file_that_replaced_the_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    replace_empty: Callable[[Path, Path], bool] = secret_files._replace_empty

    def after_the_winner(target: Path, draft: Path) -> bool:
        # It should notice a winner between its own look at the empty file and the replacing.
        monkeypatch.setattr(secret_files, "_replace_empty", replace_empty)
        assert read_or_create_secret(path, lambda: "winner") == "winner"
        return replace_empty(target, draft)

    monkeypatch.setattr(secret_files, "_replace_empty", after_the_winner)
    assert read_or_create_secret(path, lambda: "loser") == "winner"
    assert os.listdir(tmp_path) == ["secret"]


_barrier: Barrier


def _share(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _race(path: Path) -> str:
    _barrier.wait(timeout=20)
    return read_or_create_secret(path, lambda: f"of-{os.getpid()}")


@pytest.mark.parametrize("start", ["missing", "empty"])
def test_processes_that_race_agree(tmp_path: Path, start: str) -> None:
    context = multiprocessing.get_context("spawn")
    racers = 4
    with ProcessPoolExecutor(
        racers, mp_context=context, initializer=_share, initargs=(context.Barrier(racers),)
    ) as pool:
        for number in range(20):
            path = tmp_path / str(number) / "secret"
            if start == "empty":
                path.parent.mkdir()
                path.touch(mode=0o600)
            found = list(pool.map(_race, [path] * racers))
            assert len(set(found)) == 1
            assert path.read_text().strip() == found[0]
            assert os.listdir(path.parent) == ["secret"]
