"""A start, until there is a process."""

from __future__ import annotations

from typing import Any

import pytest

from instances.errors import PortUnavailable
from instances.states import Status
from instances.supervisor.controller.phases import starting as module
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.controller.phases.startup_probing import StartupProbing
from instances.supervisor.controller.phases.waiting import WaitingToRestart
from tests.instances.supervisor.controller.phases.conftest import Bench, row


@pytest.fixture
def free_ports(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The ports on which no other program listens."""
    ports = {8000, 8001}
    monkeypatch.setattr(module, "is_bindable", lambda port, host: port in ports)
    return ports


def begin(bench: Bench, row_values: dict[str, Any] | None = None) -> Phase:
    if row_values is not None:
        bench.set(row(**row_values))
    bench.instance.allocation.grant()
    assert bench.instance.row is not None
    return bench.enter(bench.phases.starting(bench.instance.row))


def test_a_process_is_started_once_the_start_is_written(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    phase = begin(bench)
    assert bench.seen() == [(Status.STARTING, "supervisor:start")]
    assert bench.last().reason == "requested by api"
    assert bench.step(phase) is phase
    assert spawned == []
    bench.store.written()
    assert isinstance(bench.step(phase), StartupProbing)
    assert spawned == [8000]


def test_a_database_that_is_away_delays_a_start_by_a_second_at_most(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    phase = begin(bench)
    assert bench.step(phase, after_seconds=0.9) is phase
    assert isinstance(bench.step(phase, after_seconds=0.2), StartupProbing)


def test_another_port_replaces_one_that_another_program_uses(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    free_ports.remove(8000)
    phase = begin(bench)
    bench.store.written()
    assert bench.step(phase) is phase
    assert bench.step(phase, after_seconds=600) is phase
    bench.store.moves.pop()(8001)
    assert isinstance(bench.step(phase), StartupProbing)
    assert spawned == [8001]


def test_a_start_without_a_free_port_fails(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    free_ports.clear()
    phase = begin(bench)
    bench.store.written()
    bench.step(phase)
    bench.store.moves.pop()(PortUnavailable("none is free"))
    assert isinstance(bench.step(phase), Settled)
    assert bench.last().new is Status.FAILED
    assert bench.last().reason == "none is free"
    assert spawned == []


def test_a_port_of_the_operators_choice_is_not_replaced(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    free_ports.clear()
    backend = {"model": "m.gguf", "port": 8000}
    phase = begin(bench, {"document": {"backend_options": backend}})
    bench.store.written()
    assert isinstance(bench.step(phase), Settled)
    assert bench.last().new is Status.FAILED
    assert bench.store.moves == []


def test_a_failed_restart_is_tried_again(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    free_ports.clear()
    phase = begin(bench, {"status": Status.RESTARTING, "observed_generation": 1, "restarts": 1})
    bench.store.written()
    bench.step(phase)
    bench.store.moves.pop()(PortUnavailable("none is free"))
    assert isinstance(bench.step(phase), WaitingToRestart)
    assert bench.seen() == [
        (Status.STARTING, "supervisor:restart"),
        (Status.RESTARTING, "supervisor:crash"),
    ]


def test_a_stop_cancels_the_start(bench: Bench, spawned: list[int], free_ports: set[int]) -> None:
    phase = begin(bench)
    bench.store.written()
    bench.request_stop()
    assert isinstance(bench.enter(bench.step(phase)), Settled)
    assert bench.last().new is Status.STOPPED
    assert spawned == []


def test_a_restart_begins_the_start_anew(
    bench: Bench, spawned: list[int], free_ports: set[int]
) -> None:
    phase = begin(bench)
    bench.store.written()
    bench.change(generation=2)
    following = bench.step(phase)
    assert isinstance(following, Starting)
    assert following is not phase
    assert spawned == []


def test_a_container_of_the_same_name_is_removed_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spawned: list[int], free_ports: set[int]
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(module, "remove_container", removed.append)
    phase = begin(bench, {"document": {"docker_enabled": True}})
    bench.store.written()
    assert bench.step(phase) is phase
    assert spawned == []
    work, then = bench.jobs.pop()
    then(work())
    assert isinstance(bench.step(phase), StartupProbing)
    assert len(removed) == 1
