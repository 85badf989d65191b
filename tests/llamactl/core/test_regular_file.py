from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from llamactl.core.regular_file import open_regular
from llamactl.server.log_file import open_log, read_tail


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, socket_at])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR])
def test_what_is_no_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], object], flags: int
) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(OSError, match=r"no file|Is a directory"):
        os.close(open_regular(path, flags))


def test_a_fifo_with_a_reader_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "x"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="no file"):
        open_regular(path, os.O_WRONLY)
    os.close(reader)


def test_log_of_a_service_in_whose_place_a_fifo_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "broker.log")
    with pytest.raises(OSError, match="no file"):
        open_log(tmp_path / "broker.log")
    assert read_tail(tmp_path / "broker.log", 5) == ""
