"""A node with the fake backend and its supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from instances import lifecycle
from instances.models import Instance, StatusChange
from instances.states import Status
from instances.supervisor import Supervisor
from instances.supervisor.controller import drain
from instances.supervisor.scheduling import traffic_monitor
from llamactl.config import AppConfig, current
from tests.support.paths import FAKE_BACKEND
from tests.support.until import WAIT_SECONDS, until

PROGRAM = FAKE_BACKEND
NODE = "main"


def signals_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the signals that were sent to backends, as logged."""
    return [text for record in caplog.records if (text := record.getMessage()).startswith("SIG")]


def children() -> set[int]:
    """The processes of which this one is the parent, zombies included, but for shared ones."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):  # the thread has just ended
            text = Path(f"/proc/self/task/{thread}/children").read_text()
            found |= {int(pid) for pid in text.split()}
    return {pid for pid in found if not _is_shared(pid)}


def backends() -> set[int]:
    """The children that run the fake backend's program, without helpers that end at once."""
    found = set()
    for pid in children():
        with suppress(OSError):
            if b"fake_backend/program.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def _is_shared(pid: int) -> bool:
    """Whether it is a Valkey, a llamactl or a tracker that the tests of this process share."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return any(name in words for name in _SHARED)
    return False


_SHARED = (b"valkey-server", b"manage.py\0run", b"multiprocessing.resource_tracker")


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _data_version() -> int:
    with connection.cursor() as cursor:
        return int(cursor.execute("PRAGMA data_version").fetchone()[0])


class NodeUnderTest:
    """The node ``main``: instances of the fake backend, and one supervisor at a time."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None

    def start(self, **replaced: Any) -> Supervisor:
        """A new worker, so to speak."""
        replaced.setdefault("key_for", lambda instance_id, launch_id: f"key-{instance_id}")
        self.supervisor = Supervisor(NODE, current(), **replaced)
        self.supervisor.start()
        return self.supervisor

    def stop(self, *, quickly: bool = False) -> None:
        if self.supervisor is not None:
            self.supervisor.stop(quickly=quickly)
            self.supervisor = None

    def wake(self, _: str = "") -> None:
        if self.supervisor is not None:
            self.supervisor.wake()

    def create(self, name: str = "one", model: str = "fake", **options: Any) -> Instance:
        """``options`` may hold knobs of the fake backend (``FAKE_…``)."""
        environment = {key: options.pop(key) for key in list(options) if key.startswith("FAKE_")}
        backend_options = {"model": model, **options.pop("backend_options", {})}
        document = {"backend_options": backend_options, "environment": environment, **options}
        return lifecycle.create(name, document, cause="test")

    def running(self, name: str = "one", **options: Any) -> Instance:
        """An instance that has become ready."""
        self.create(name, **options)
        self.ask_start(name)
        return self.reaches(Status.RUNNING, name)

    def ask_start(self, name: str = "one") -> None:
        lifecycle.request_start(name, cause="test")

    def ask_stop(self, name: str = "one") -> None:
        lifecycle.request_stop(name, cause="test")

    def ask_restart(self, name: str = "one") -> None:
        lifecycle.request_restart(name, cause="test")

    def see(self, name: str = "one") -> Instance:
        return Instance.objects.get(name=name)

    def reaches(
        self, status: Status, name: str = "one", *, seconds: float = WAIT_SECONDS
    ) -> Instance:
        """Return the instance, once it has acted on the last request and has this status."""

        version = None

        def is_there() -> Instance | None:
            nonlocal version
            # A count of other connections' commits, at 2 % of the cost of a query.
            before, version = version, _data_version()
            if version == before:
                return None
            instance = self.see(name)
            seen = not instance.has_pending_generation
            return instance if instance.status == status and seen else None

        def what() -> str:
            now = self.see(name)
            return f"{name} {status}, but {now.status}; {self.history(name)}; {now.failure}"

        return until(is_there, what, seconds=seconds)

    def history(self, name: str = "one") -> list[str]:
        """The statuses it has had, the oldest first."""
        rows = StatusChange.objects.filter(instance__name=name).order_by("id")
        return [row.new for row in rows]

    def log(self, name: str = "one") -> str:
        return (current().instances.logs_dir / f"{name}.log").read_text(errors="replace")


@pytest.fixture
def fake_backend(override: Callable[..., AppConfig]) -> Callable[..., AppConfig]:
    """Changes limits of the instances, and makes the fake backend their program."""

    def change(**limits: object) -> AppConfig:
        backend = current().backends.llama_cpp.model_copy(
            update={"command": sys.executable, "args": ["-S", "-E", str(PROGRAM)]}
        )
        return override(
            backends={"llama_cpp": backend},
            instances={
                "stop_timeout": 0.3,
                "drain_timeout": 1.0,
                "keep_backends": False,
                "orphan_grace": 0.0,  # a guard outlives its worker; test_orphans has real workers
            }
            | limits,
        )

    return change


@pytest.fixture
def node(
    transactional_db: None,
    fake_backend: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NodeUnderTest]:
    """A node without a supervisor yet. Fails the test if it leaves a process behind."""
    fake_backend()
    before = children()
    node = NodeUnderTest()
    monkeypatch.setattr(lifecycle, "wake_node", node.wake)
    # No web process: only open connections count as in flight.
    monkeypatch.setattr(drain, "read_reports", lambda client: [])
    monkeypatch.setattr(traffic_monitor, "read_reports", lambda client: [])
    yield node
    fake_backend()
    node.stop(quickly=True)
    left = children() - before
    for pid in left:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def supervised(node: NodeUnderTest) -> NodeUnderTest:
    """A node with a running supervisor."""
    node.start()
    return node
