"""Locks of files: one holder, and children that hold on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llamactl.core.locks import Locked, acquire


def test_a_held_lock_is_refused_and_names_its_holder(tmp_path: Path) -> None:
    held = acquire(tmp_path / "lock")
    with pytest.raises(Locked) as refusal:
        acquire(tmp_path / "lock")
    os.close(held)
    assert refusal.value.pid == os.getpid()


def test_a_released_lock_can_be_acquired(tmp_path: Path) -> None:
    os.close(acquire(tmp_path / "lock"))
    os.close(acquire(tmp_path / "lock"))


def test_waiting_is_announced_once_and_ends_with_the_lock(tmp_path: Path) -> None:
    held = acquire(tmp_path / "lock")
    timer = threading.Timer(0.1, os.close, [held])
    announced: list[str] = []

    def announce() -> None:
        announced.append("waiting")
        timer.start()

    mine = acquire(tmp_path / "lock", wait_seconds=30, on_wait=announce)
    timer.join()
    os.close(mine)
    assert announced == ["waiting"]


def test_a_child_holds_an_inherited_lock_until_it_ends(tmp_path: Path) -> None:
    held = acquire(tmp_path / "lock")
    argv = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[held]) as child:
        os.close(held)
        with pytest.raises(Locked):
            acquire(tmp_path / "lock")
        child.communicate()
    os.close(acquire(tmp_path / "lock"))
