"""The state of one supervised instance that all its phases share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from instances.backends.docker import unlabelled_name
from instances.desired_state import is_by_operator, is_by_supervisor
from instances.states import DesiredState
from instances.supervisor.context import LONG_AGO, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.allocation import Allocation
from instances.supervisor.controller.docker_calls import DockerCalls
from instances.supervisor.controller.restart_policy import Crash, restart_delay
from instances.supervisor.failure import Failure
from instances.supervisor.process.adoption import kill_lost, kill_stragglers
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import Identity
from instances.supervisor.state.observed import ObservedState
from instances.supervisor.state.rows import Row
from llamactl.masking import mask_secrets, secret_values

logger = logging.getLogger(__name__)

STRAGGLERS_SECONDS = 5.0
"""Longest wait: to read the environment of a process may take as long as a call of its takes."""

WORKER_ENDS = ("supervisor:shutdown", "the worker ends")


class ManagedInstance:
    """Desired state, observed state and allocation of one instance."""

    def __init__(self, name: str, row: Row | None, context: SupervisorContext) -> None:
        self.name = name
        self.row = row
        """The instance as the database has it; ``None`` once it is deleted."""
        self.context = context
        self.limits = context.config.instances
        self.allocation = Allocation(row, context.clock())
        self.observed = ObservedState(name, row, context.store)
        self.docker = DockerCalls(context.off_thread)
        self.preempt_reason = ""
        self.is_worker_ending = False
        """The worker stops its backends; the desired state stays for the next worker."""
        self.is_worker_ending_quickly = False
        self.stragglers_until = LONG_AGO
        """End of the wait for the children of an exited process, which may hold its port and
        memory."""

    def wanted_row(self) -> Row | None:
        """Return the row, if its desired state is ``running`` and the worker does not end."""
        if self.is_worker_ending or self.row is None:
            return None
        return self.row if self.row.desired_state is DesiredState.RUNNING else None

    def has_new_request(self, row: Row) -> bool:
        """Whether a start or restart was requested after the last observed one."""
        return row.generation > self.observed.observed_generation

    def row_to_keep_running(self) -> Row | None:
        """Return the row, if it asks for the present process; ``None`` if that must end."""
        row = self.wanted_row()
        return None if row is None or self.has_new_request(row) else row

    def stop_cause(self) -> tuple[str, str]:
        """Return cause and reason of a stop, for the history of statuses."""
        row = self.row
        if self.is_worker_ending or row is None:
            return WORKER_ENDS
        if row.desired_state is DesiredState.STOPPED and is_by_supervisor(row.requested_by):
            return row.requested_by, self.preempt_reason
        is_restart = row.desired_state is DesiredState.RUNNING
        cause = "supervisor:restart" if is_restart else "supervisor:stop"
        return cause, f"requested by {row.requested_by}" if row.requested_by else ""

    def may_wait_for_requests(self, row: Row) -> bool:
        """Whether a drain has no time limit, because no operator requested the stop.

        Without an operator only the supervisor can have wanted the stop, even if a request has
        asked for a start since.
        """
        return not self.is_worker_ending and not is_by_operator(row.requested_by)

    def drain_deadline(self) -> float:
        return self.context.clock() + self.limits.drain_timeout

    def restart_delay(self, row: Row, failure: Failure) -> float | None:
        """Return the seconds until the next attempt; ``None`` if the failure is final."""
        is_retryable = failure.is_retryable(may_move=row.fixed_port is None)
        crash = Crash(self.observed.restarts, self.observed.has_been_ready, is_retryable)
        return restart_delay(spawn.restart_policy(row), crash)

    def close_log(self, row: Row, launch_id: str) -> list[str]:
        """Mark the end of the launch; returns its last lines, with the known secrets masked.

        Each client that waited for the start gets these lines. The known secrets are the backend's
        key, and those of the instance's options.
        """
        secrets = {self.context.key_for(row.id, launch_id), *secret_values(row.options)}
        lines = spawn.close_log(self.name, self.context.config)
        return [mask_secrets(line, secrets) for line in lines]

    def adopt_container_of(self, process: Process) -> None:
        """Identify the container of an adopted process, if llamactl 0.1 started it.

        The name has to be that of our row: a process may have any name in its environment.
        """
        row, name = self.row, process.marker.container
        if row is not None and name == unlabelled_name(row.name, row.port):
            self.docker.adopt_unlabelled(name, process)

    def clean_up_after(self, process: Process) -> None:
        """End the children and the container that an exited process has left behind."""
        marker = process.marker
        self._end_stragglers(
            partial(
                kill_stragglers,
                marker.launch,
                process.control_group,
                process.noted,
                is_all_in_group=process.ended_in_group,
            )
        )
        if marker.container:
            self.docker.remove(marker.container)

    def clean_up_lost(self, noted: Iterable[Identity]) -> None:
        """End the children of a process that has ended without a worker."""
        launch_id = self.row.launch_id if self.row is not None else ""
        if launch_id or noted:
            self._end_stragglers(partial(kill_lost, launch_id, noted, self.context.node_marker))

    def _end_stragglers(self, work: Callable[[], int]) -> None:
        def finish(_: int) -> None:
            self.stragglers_until = LONG_AGO

        self.stragglers_until = self.context.clock() + STRAGGLERS_SECONDS
        self.context.off_thread(work, finish, on_error=0)
