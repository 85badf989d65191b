"""Supervision without a database or a broker."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection

from instances.models import Instance
from instances.states import Status
from instances.supervisor import supervisor
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.controller.phases.startup_probing import StartupProbing
from instances.supervisor.controller.phases.stopping import Stopping
from instances.supervisor.state import rows, store
from instances.supervisor.state.rows import steps_between
from tests.instances.supervisor.conftest import NodeUnderTest, backends, children, is_alive
from tests.support.until import until


class Database:
    """A switch for the supervisor's way to the database; the test's own is not affected."""

    def __init__(self) -> None:
        self.is_away = False
        self.tries = 0

    def reach(self) -> None:
        self.tries += 1
        if self.is_away:
            raise OperationalError("unable to open database file")


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    write = rows.write

    def reach_and_write(observation: rows.Observation) -> None:
        database.reach()
        write(observation)

    monkeypatch.setattr(store, "close_old_connections", database.reach)
    monkeypatch.setattr(rows, "write", reach_and_write)
    return database


def test_a_crash_is_restarted_without_a_database_and_written_later(
    supervised: NodeUnderTest, database: Database
) -> None:
    pid = supervised.running(restart_delay=0).pid
    database.is_away = True
    os.kill(pid or 0, signal.SIGKILL)
    new = until(lambda: backends() - {pid}).pop()
    assert supervised.see().pid == pid
    database.is_away = False
    until(lambda: supervised.see().pid == new)
    assert supervised.reaches(Status.RUNNING).restarts == 1
    assert supervised.history() == ["starting", "running", "restarting", "starting", "running"]


def test_a_stop_goes_on_without_a_database(supervised: NodeUnderTest, database: Database) -> None:
    pid = supervised.running(FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1").pid
    supervised.ask_stop()
    supervised.reaches(Status.SHUTTING_DOWN)
    database.is_away = True
    until(lambda: not is_alive(pid or 0))
    assert supervised.see().status == Status.SHUTTING_DOWN
    database.is_away = False
    supervised.reaches(Status.STOPPED)


def test_a_database_that_is_away_is_not_asked_all_the_time(
    supervised: NodeUnderTest, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    supervised.running()
    database.is_away = True
    database.tries = 0
    for _ in range(60):
        supervised.wake()
        time.sleep(0.01)
    assert database.tries <= 5
    until(lambda: "supervising from memory" in caplog.text)
    assert caplog.text.count("supervising from memory") == 1


def test_a_supervisor_that_starts_without_a_database_begins_when_it_is_there(
    node: NodeUnderTest, database: Database
) -> None:
    database.is_away = True
    node.start()
    node.create()
    node.ask_start()
    time.sleep(0.2)
    assert node.see().status == Status.STOPPED
    database.is_away = False
    node.reaches(Status.RUNNING)


def test_a_worker_can_end_without_a_database(
    node: NodeUnderTest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STORE_CLOSE_SECONDS", 0.3)
    node.start()
    node.running()
    database.is_away = True
    began = time.monotonic()
    node.stop()
    assert time.monotonic() - began < 10
    assert not children()
    # The next worker sees that it has ended, and that its desired state is running.
    database.is_away = False
    node.start()
    until(lambda: node.see().pid in children())


def test_a_locked_database_delays_the_write_and_nothing_else(supervised: NodeUnderTest) -> None:
    pid = supervised.running(restart_delay=0).pid
    path = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        os.kill(pid or 0, signal.SIGKILL)
        new = until(lambda: backends() - {pid}).pop()
        other.execute("COMMIT")
    until(lambda: supervised.see().pid == new)
    assert supervised.see().restarts == 1


def test_a_status_that_another_program_wrote_is_corrected(supervised: NodeUnderTest) -> None:
    # Such as a backup of the database that was put back.
    pid = supervised.running(restart_delay=30).pid
    Instance.objects.update(status="stopped")
    os.kill(pid or 0, signal.SIGKILL)
    instance = supervised.reaches(Status.RESTARTING)
    assert instance.restarts == 1


def test_a_refused_write_does_not_delay_the_others(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rows.write

    def refuse(observation: rows.Observation) -> None:
        if observation.name == "cursed":
            raise IntegrityError("no")
        write(observation)

    monkeypatch.setattr(rows, "write", refuse)
    supervised.create("cursed")
    supervised.ask_start("cursed")
    supervised.running("one")
    assert supervised.see("cursed").status == Status.STOPPED


def test_an_error_in_one_supervision_does_not_end_the_others(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = InstanceController.step
    tries = []

    def broken(self: InstanceController) -> None:
        if self.name == "cursed":
            tries.append(1)
            raise RuntimeError("a mistake")
        step(self)

    monkeypatch.setattr(InstanceController, "step", broken)
    supervised.create("cursed")
    supervised.running("one")
    assert len(tries) <= 3


class Cursed:
    """An error in a method of a controller or phase of the instance ``cursed``, while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.is_on = True
        self.tries = 0
        original = getattr(owner, method)

        def broken(this: Any, *args: object, **named: object) -> object:
            name = this.name if owner is InstanceController else this._instance.name
            if self.is_on and name == "cursed":
                self.tries += 1
                raise RuntimeError("the secret is sesame")
            return original(this, *args, **named)

        monkeypatch.setattr(owner, method, broken)
        monkeypatch.setattr(supervisor, "PAUSE_AFTER_ERROR_SECONDS", 0.02)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (InstanceController, "step"),
        (Starting, "enter"),
        (Starting, "step"),
        (StartupProbing, "enter"),
        (StartupProbing, "step"),
    ],
)
def test_repeated_errors_fail_the_instance_until_a_new_start_is_requested(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    curse = Cursed(monkeypatch, owner, method)
    supervised.create("cursed")
    supervised.ask_start("cursed")
    failed = supervised.reaches(Status.FAILED, "cursed")
    assert failed.failure is not None
    assert failed.failure["reason"] == "supervision_failed"
    assert "RuntimeError" in failed.failure["details"]
    assert "sesame" not in failed.failure["details"]
    assert supervised.history("cursed") == ["starting", "failed"]
    assert not children()
    # It should be left at that, with the others in good health, and try again when asked to.
    supervised.running("one")
    assert supervised.history("cursed") == ["starting", "failed"]
    curse.is_on = False
    supervised.ask_start("cursed")
    supervised.reaches(Status.RUNNING, "cursed")


def test_a_stop_that_raises_repeatedly_ends_the_process_all_the_same(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = supervised.running("cursed").pid
    Cursed(monkeypatch, Stopping, "enter")
    supervised.ask_stop("cursed")
    supervised.reaches(Status.STOPPED, "cursed")
    assert not is_alive(pid or 0)


def test_a_few_errors_fail_no_instance(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    curse = Cursed(monkeypatch, StartupProbing, "step")
    monkeypatch.setattr(supervisor, "PAUSE_AFTER_ERROR_SECONDS", 0.2)
    supervised.create("cursed")
    supervised.ask_start("cursed")
    until(lambda: curse.tries >= 2)
    curse.is_on = False
    supervised.reaches(Status.RUNNING, "cursed")
    assert supervised.history("cursed") == ["starting", "running"]


def test_many_starts_at_once_all_succeed(supervised: NodeUnderTest) -> None:
    names = [f"i{number}" for number in range(8)]
    for name in names:
        supervised.create(name)
    threads = [threading.Thread(target=_ask, args=(supervised, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        supervised.reaches(Status.RUNNING, name)
    assert len(children()) == len(names)


def _ask(node: NodeUnderTest, name: str) -> None:
    try:
        node.ask_start(name)
    finally:
        connection.close()


@pytest.mark.parametrize("old", Status)
@pytest.mark.parametrize("new", Status)
def test_every_status_can_be_reached_by_allowed_steps(old: Status, new: Status) -> None:
    way = steps_between(old, new)
    assert way[-1] is new
    assert len(way) <= 4
