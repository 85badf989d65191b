"""The processes of a running stack, for tests that kill or freeze them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.support.stack import Stack
from tests.support.until import until

BACK_SECONDS = 30


def _children(stack: Stack, word: str) -> list[psutil.Process]:
    assert stack.process is not None
    found = []
    for process in psutil.Process(stack.process.pid).children():
        try:
            if word in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def webs(stack: Stack) -> list[psutil.Process]:
    return _children(stack, "llamactl.server.web")


def worker(stack: Stack) -> psutil.Process:
    found: psutil.Process = until(
        lambda: _children(stack, "celery"), "a worker", seconds=BACK_SECONDS
    )[0]
    return found


def broker(stack: Stack) -> psutil.Process:
    found: psutil.Process = until(
        lambda: _children(stack, "valkey"), "a broker", seconds=BACK_SECONDS
    )[0]
    return found


def zombies(process: psutil.Process) -> list[psutil.Process]:
    """The descendants of a process that ended and have not been reaped."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def said(stack: Stack, text: str) -> int:
    """Count a message of ``manage.py run``: ``worker ready`` comes once for each start."""
    return stack.output.read_text(errors="replace").count(text)


@contextmanager
def coming_back(stack: Stack, name: str, times: int = 1) -> Iterator[None]:
    """Wait, after the block, until the service ``name`` that it ended is ready again."""
    before = said(stack, f"{name} ready")
    yield
    until(
        lambda: said(stack, f"{name} ready") >= before + times,
        lambda: f"{name} back:\n{stack.output.read_text()[-2000:]}",
        seconds=BACK_SECONDS,
    )


@contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Stopped for the length of the block, as on a host that swaps or migrates."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # killed in the block
                process.send_signal(signal.SIGCONT)


def client_ports(stack: Stack, process: psutil.Process) -> set[int]:
    """The ports of the clients that are connected to a web process; freeze it before."""
    return {
        connection.raddr.port
        for connection in process.net_connections("tcp")
        if connection.raddr and connection.laddr.port == stack.port
    }
