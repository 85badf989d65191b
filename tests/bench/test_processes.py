"""Processes found by their ports, and awaited until they are idle."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from bench import processes
from bench.processes import await_rest, listeners


def test_all_processes_that_share_a_listening_socket_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child:
            child.stdout.readline()
            found = {process.pid for process in listeners(port)}
            child.kill()
    assert found == {os.getpid(), child.pid}


def test_a_port_that_is_connected_to_is_not_listened_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert listeners(client.getsockname()[1]) == ()


def test_a_busy_process_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a suspended machine a busy process looks idle, unless the sample is long.
    monkeypatch.setattr(processes, "SAMPLE_SECONDS", 1.0)
    monkeypatch.setattr(processes, "AT_REST_CORES", 0.01)
    busy = "import time\nwhile time.process_time() < 1.5: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        assert not await_rest([process], 0.5)
        assert await_rest([process], 30)
        assert sum(process.cpu_times()[:2]) > 1  # user and system
        child.kill()
