"""How far is a start: what does it wait for before there is a process?

For its record in the database; for another port, where a stranger has taken the instance's; for a
container of the same name, left over from a client that was killed. ``step`` goes as far as it can.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from instances.backends.failure_signs import FailureReason
from instances.errors import PortUnavailable
from instances.ports import is_bindable
from instances.supervisor.context import NEVER, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.spawn import LaunchFailed
from instances.supervisor.failure import Failure
from instances.supervisor.process.containers import remove_container
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)

RECORD_PATIENCE_SECONDS = 1.0
"""Then it starts without: a process that the database doesn't know is known by its markers."""


class Start:
    """One start of an instance, until it has a process."""

    def __init__(self, row: Row, world: SupervisorContext, now: float) -> None:
        self.row = row
        """As it was when the start began, but for a new port."""
        self.due = now + RECORD_PATIENCE_SECONDS
        self._world = world
        self._has_old_container = True
        self._port_problem: PortUnavailable | None = None

    def go_on(self) -> None:
        """What it waited for is there."""
        self.due = 0.0

    def step(self, now: float) -> Process | None:
        """The process, or ``None`` as long as there is something to wait for (until ``due``).

        Raises LaunchFailed.
        """
        if now < self.due:
            return None
        if self._port_problem is not None:
            raise LaunchFailed(Failure(FailureReason.PORT_IN_USE, self._port_problem.details))
        world = self._world
        plan = spawn.plan(self.row, world.config, world.key_for(self.row.id))
        if not is_bindable(self.row.port, plan.bind_host):
            self._find_port(plan.bind_host)
            return None
        if plan.launch.container_name and self._has_old_container:
            self._remove_container(plan.launch.container_name)
            return None
        return spawn.carry_out(
            plan,
            world.config,
            node=world.node_marker,
            instance=instance_marker(self.row.id, self.row.name),
        )

    def _find_port(self, host: str) -> None:
        port = self.row.port
        if self.row.fixed_port is not None:
            raise LaunchFailed(
                Failure(
                    FailureReason.PORT_IN_USE,
                    f"port {port} is used by another program; end that, or leave"
                    " backend_options.port out to get a free one",
                )
            )
        logger.warning(
            "port %d is used by another program", port, extra={"instance": self.row.name}
        )
        self.due = NEVER
        self._world.ledger.move_port(self.row, host, self._take_port)

    def _take_port(self, answer: int | PortUnavailable) -> None:
        if isinstance(answer, PortUnavailable):
            self._port_problem = answer
        else:
            self.row = replace(self.row, port=answer)
        self.go_on()

    def _remove_container(self, name: str) -> None:
        self.due = NEVER
        self._has_old_container = False
        self._world.off_thread(
            lambda: remove_container(name), lambda _: self.go_on(), on_error=None
        )


def instance_marker(instance_id: int, name: str) -> str:
    """What a process of this instance says of itself: a name may have been given again."""
    return f"{instance_id}:{name}"
