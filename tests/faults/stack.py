"""A whole stack that runs the fake backend, to be done harm to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from tests.faults import victims
from tests.support.stack import END_SECONDS, Stack, kill_all
from tests.support.until import until

REAP_SECONDS = 5


class FakeStack(Stack):
    """A stack whose instances are the fake backend."""

    def __init__(self, data_dir: Path, program: Path, **environment: str) -> None:
        settings = {"LLAMACTL_STOP_TIMEOUT": "2", "LLAMACTL_DRAIN_TIMEOUT": "30"}
        super().__init__(data_dir, **{**settings, **environment})
        self._program = program

    def create_fake(self, name: str, model: str = "fake", **options: object) -> None:
        settings = {"restart_delay": 1, "command_override": str(self._program)}
        self.create(name, {"model": model}, **{**settings, **options})

    def run_fake(self, name: str, model: str = "fake", **options: object) -> None:
        """An instance that is ready."""
        self.create_fake(name, model, **options)
        self.start_instance(name)

    def start_instance(self, name: str) -> None:
        assert self.call("POST", f"/api/v1/instances/{name}/start").ok
        self.until_status(name, "running")

    def stop_instance(self, name: str) -> None:
        assert self.call("POST", f"/api/v1/instances/{name}/stop").ok
        self.until_status(name, "stopped")

    def one_backend(self, name: str) -> psutil.Process:
        """Its process, once there is one and no second."""
        found = until(lambda: self.backends(name), f"a process of {name}", seconds=END_SECONDS)
        assert len(found) == 1, f"{name} runs {len(found)} times: {found}"
        return found[0]

    def query(self, sql: str, *parameters: object) -> list[tuple]:
        """Straight from the database, which is as good a witness as any."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            return database.execute(sql, parameters).fetchall()

    def crashes(self, name: str) -> int:
        """How many are on record."""
        return len(
            self.query(
                "SELECT 1 FROM instances_statuschange change"
                " JOIN instances_instance instance ON instance.id = change.instance_id"
                " WHERE instance.name = ? AND change.cause = 'supervisor:crash'",
                name,
            )
        )


@contextmanager
def running(
    data_dir: Path, program: Path, *arguments: str, **environment: str
) -> Iterator[FakeStack]:
    """Started for the block; afterwards it ends in order, and leaves no process."""
    stack = FakeStack(data_dir, program, **environment)
    stack.arguments = list(arguments)
    try:
        stack.start()
        yield stack
        end(stack)
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.kill()
        kill_all(stack.processes())


def end(stack: FakeStack) -> None:
    """Ctrl-C; checks that everything ends well."""
    # --keep-backends leaves them for the next start, of which there is none.
    for instance in stack.call("GET", "/api/v1/instances").json():
        stack.call("POST", f"/api/v1/instances/{instance['name']}/stop")
    at_rest = ("stopped", "failed")
    until(
        lambda: all(
            instance["status"] in at_rest
            for instance in stack.call("GET", "/api/v1/instances").json()
        ),
        "all stopped",
        seconds=END_SECONDS,
    )
    worker = victims.worker(stack)
    until(lambda: not victims.zombies(worker), "all reaped", seconds=REAP_SECONDS)
    assert stack.interrupt() == 0
    output = stack.output.read_text(errors="replace")
    assert "Traceback" not in output, output[-5000:]
    stack.until_nothing_left()
