"""One instance under a stepped clock, without processes, threads or a database."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from instances.options import InstanceOptions
from instances.states import DesiredState, Status
from instances.supervisor.context import SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.health_check import READY
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.factory import PhaseFactory
from instances.supervisor.controller.phases.phase import Exit, Phase
from instances.supervisor.process.listeners import OURS
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Observation, Row
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig, current

STARTED = datetime(2026, 1, 2, tzinfo=UTC)


def row(**values: Any) -> Row:
    """A row that asks for a start, unless ``values`` say otherwise."""
    document = {
        "backend_options": {"model": "m.gguf"},
        "auto_restart": True,
        "max_restarts": 3,
        "restart_delay": 5,
    } | values.pop("document", {})
    defaults: dict[str, Any] = {
        "id": 1,
        "name": "one",
        "desired_state": DesiredState.RUNNING,
        "generation": 1,
        "requested_by": "api",
        "updated_at": STARTED,
        "options": InstanceOptions.parse(document, current()).to_document(),
        "port": 8000,
        "revision": 1,
        "status": Status.STOPPED,
        "observed_generation": 0,
        "pid": None,
        "pid_started_ticks": None,
        "launch_id": "",
        "restarts": 0,
        "ready_at": None,
        "last_used_at": None,
        "queue": None,
    }
    return Row(**(defaults | values))


@dataclass
class FakeStore:
    """Keeps the observations; ``written`` says that the database has them."""

    observations: list[Observation] = field(default_factory=list)
    moves: list[Callable[[Any], None]] = field(default_factory=list)
    _callbacks: list[Callable[[int], None]] = field(default_factory=list)

    def write(self, observation: Observation, then: Callable[[int], None] | None = None) -> None:
        self.observations.append(observation)
        if then is not None:
            self._callbacks.append(then)

    def move_port(self, row: Row, host: str, then: Callable[[Any], None]) -> None:
        self.moves.append(then)

    def written(self, revision: int = 7) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for then in callbacks:
            then(revision)


class FakeProcess(Process):
    """A process that keeps the signals it gets."""

    def __init__(self, *, container: str = "") -> None:
        super().__init__(1234, 99, -1, Marker("node", "1:one", "", container))
        self.signals: list[signal.Signals] = []

    def signal_group(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def reap(self) -> int:
        return 0


class Bench:
    """One instance, the phases that it may enter, and all that surrounds them."""

    def __init__(self, config: AppConfig) -> None:
        self.now = 1000.0
        self.store = FakeStore()
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.watched: list[Callable[[], None]] = []
        self.traffic: Any = None
        self.context = SupervisorContext(
            config=config,
            node_marker="node",
            store=cast(StateStore, self.store),
            off_thread=cast(Any, self._off_thread),
            watch=lambda process, on_exit: self.watched.append(on_exit),
            key_for=lambda instance_id, launch_id: "key",
            clock=lambda: self.now,
            check_health=lambda *_: READY,
            owner_of=lambda *_: OURS,
            traffic=lambda: self.traffic,
        )
        self.set(row())

    def set(self, row: Row | None) -> None:
        """Begin anew with this row."""
        self.instance = ManagedInstance("one", row, self.context)
        self.phases = PhaseFactory(self.instance)

    def change(self, **values: Any) -> None:
        """Change the row, as the next refresh of the rows does."""
        assert self.instance.row is not None
        self.instance.row = replace(self.instance.row, **values)

    def request_stop(self, requested_by: str = "api") -> None:
        self.change(desired_state=DesiredState.STOPPED, requested_by=requested_by)

    def enter(self, phase: Phase) -> Phase:
        phase.enter(self.now)
        return phase

    def step(self, phase: Phase, *, after_seconds: float = 0.0) -> Phase:
        self.now += after_seconds
        return phase.step(self.now)

    def answer(self, result: Any) -> None:
        """Let the oldest job off the thread end with this result."""
        _, then = self.jobs.pop(0)
        then(result)

    def exit(self, phase: Phase, code: int | None, *log_tail: str) -> Phase:
        assert self.instance.row is not None
        return phase.exited(Exit(self.instance.row, code, log_tail), self.now)

    def seen(self) -> list[tuple[Status, str]]:
        """Statuses and causes that were written."""
        return [(each.new, each.cause) for each in self.store.observations]

    def last(self) -> Observation:
        return self.store.observations[-1]

    def _off_thread(
        self, work: Callable[[], Any], then: Callable[[Any], None], *, on_error: object
    ) -> None:
        self.jobs.append((work, then))


@pytest.fixture
def bench(config: AppConfig) -> Bench:
    limits = {"start_timeout": 60.0, "stop_timeout": 10.0, "drain_timeout": 30.0}
    instances = config.instances.model_copy(update=limits | {"unhealthy_timeout": 60.0})
    return Bench(config.model_copy(update={"instances": instances}))


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports of the processes that were started; none is."""
    ports: list[int] = []

    def carry_out(plan: spawn.Plan, *_: object, **__: object) -> Process:
        ports.append(int(plan.launch.argv[plan.launch.argv.index("--port") + 1]))
        return FakeProcess()

    monkeypatch.setattr(spawn, "carry_out", carry_out)
    return ports
