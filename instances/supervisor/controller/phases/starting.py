"""Starting: from a granted start to a process.

Before a process is started, a start waits for four things: the observation ``starting`` in the
database, the end of what the last process has left behind, which may hold its port, another port
where another program listens on the instance's, and the removal of a container of the same name
that a killed docker client has left behind.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from instances.backends.failure_signs import FailureReason
from instances.errors import PortUnavailable
from instances.launch_id import new_launch_id
from instances.ports import is_bindable
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller import spawn
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Phase, Phases, PhaseWithoutProcess
from instances.supervisor.controller.spawn import LaunchFailed
from instances.supervisor.failure import Failure
from instances.supervisor.process.containers import remove_container
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_SECONDS = 1.0
"""Longest wait for the database. A process that the database does not know is found by its
markers."""


class Starting(PhaseWithoutProcess):
    """One start of an instance, until there is a process."""

    is_starting = True

    def __init__(self, instance: ManagedInstance, phases: Phases, row: Row) -> None:
        super().__init__(instance, phases)
        self._row = row
        """The row at the beginning of the start, but for a new port."""
        self._launch_id = new_launch_id()
        self._must_remove_container = True
        self._port_problem: PortUnavailable | None = None

    def enter(self, now: float) -> None:
        self.due = now + WRITE_TIMEOUT_SECONDS
        self._instance.observed.starting(self._row, then=self._continue)

    def step(self, now: float) -> Phase:
        row = self._instance.wanted_row()
        if row is None:
            return self._phases.settled()
        if self._instance.has_new_request(row):
            return self._request_start(row)
        if now < self.due or now < self._instance.stragglers_until:
            return self
        try:
            process = self._launch()
        except LaunchFailed as failed:
            return self._after_crash(self._row, failed.failure, now)
        if process is None:
            return self
        return self._phases.startup_probing(process, self._row, is_adopted=False)

    def _launch(self) -> Process | None:
        """Start the process; ``None`` while there is something to wait for, until ``due``.

        Raises LaunchFailed.
        """
        if self._port_problem is not None:
            raise LaunchFailed(Failure(FailureReason.PORT_IN_USE, self._port_problem.details))
        context, row = self._instance.context, self._row
        plan = spawn.plan(row, context.config, context.key_for(row.id, self._launch_id))
        if not is_bindable(row.port, plan.bind_host):
            self._request_other_port(plan.bind_host)
            return None
        if plan.launch.container_name and self._must_remove_container:
            self._remove_container(plan.launch.container_name)
            return None
        instance = spawn.instance_marker(row.id, row.name)
        marker = Marker(context.node_marker, instance, self._launch_id)
        return spawn.carry_out(plan, context.config, marker)

    def _request_other_port(self, host: str) -> None:
        port = self._row.port
        if self._row.fixed_port is not None:
            raise LaunchFailed(
                Failure(
                    FailureReason.PORT_IN_USE,
                    f"port {port} is used by another program; end that, or leave"
                    " backend_options.port out to get a free one",
                )
            )
        logger.warning(
            "port %d is used by another program", port, extra={"instance": self._row.name}
        )
        self.due = NO_DEADLINE
        self._instance.context.store.move_port(self._row, host, self._set_port)

    def _set_port(self, answer: int | PortUnavailable) -> None:
        if isinstance(answer, PortUnavailable):
            self._port_problem = answer
        else:
            self._row = replace(self._row, port=answer)
        self._continue()

    def _remove_container(self, name: str) -> None:
        self.due = NO_DEADLINE
        self._must_remove_container = False
        self._instance.context.off_thread(
            lambda: remove_container(name), lambda _: self._continue(), on_error=None
        )

    def _continue(self) -> None:
        self.due = 0.0
