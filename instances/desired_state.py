"""Rules that compare the desired state of an instance with its observed state.

The API applies them to the database row, the proxy to its routing table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from instances.errors import BackendStartFailed, InstanceNotFound, InstanceNotRunning
from instances.states import ON_DEMAND, SUPERVISOR, DesiredState, Status


class InstanceState(Protocol):
    """Desired and observed state of one instance."""

    @property
    def name(self) -> str: ...
    @property
    def desired_state(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def observed_generation(self) -> int: ...
    @property
    def requested_by(self) -> str: ...
    @property
    def failure(self) -> Mapping[str, Any] | None: ...


def has_pending_generation(state: InstanceState) -> bool:
    """Return whether the node has yet to observe the last requested start or restart."""
    return state.observed_generation < state.generation


def should_run(state: InstanceState) -> bool:
    """Return whether the instance runs, or will run without another request.

    A failure, or a backend that exits with code 0, settles the generation: the desired state still
    says ``running``, but no start follows.
    """
    if state.desired_state != DesiredState.RUNNING:
        return False
    return has_pending_generation(state) or state.status not in (Status.FAILED, Status.STOPPED)


def is_stopped_by_supervisor(state: InstanceState) -> bool:
    """Return whether the supervisor requested the stop: idle timeout, preemption, abandoned start.

    A request starts such an instance again, even while its process is still ending. After an
    operator's stop a request starts nothing before the process has ended.
    """
    return state.desired_state == DesiredState.STOPPED and is_by_supervisor(state.requested_by)


def is_stopping(state: InstanceState) -> bool:
    """Return whether a stop was requested, and the process has not ended yet."""
    resting = (Status.STOPPED, Status.FAILED)
    return state.desired_state == DesiredState.STOPPED and state.status not in resting


def is_by_supervisor(requested_by: str) -> bool:
    return requested_by.startswith(SUPERVISOR)


def is_by_operator(requested_by: str) -> bool:
    """Return whether the origin is an operator or a script, not an activation or the supervisor."""
    return requested_by != ON_DEMAND and not is_by_supervisor(requested_by)


def is_ready(state: InstanceState, generation: int) -> bool:
    """Return whether the process of ``generation``, or of a later one, is ready.

    A crash that will be retried (``restarting``) counts as not ready yet. Raises BackendStartFailed
    (with the reason), InstanceNotRunning (stopped meanwhile) or InstanceNotFound (deleted, and
    another instance of that name created since).
    """
    if state.generation < generation:
        raise InstanceNotFound(state.name)
    if state.desired_state == DesiredState.STOPPED:
        raise InstanceNotRunning(f"instance {state.name} was stopped before it was ready")
    if has_pending_generation(state):
        return False
    if state.status == Status.FAILED:
        raise start_failure(state.name, state.failure)
    if state.status == Status.STOPPED:
        raise start_failure(state.name, _ENDED)
    return state.status == Status.RUNNING


_ENDED: dict[str, object] = {
    "reason": "crashed",
    "details": "the backend ended by itself, exit code 0",
    "exit_code": 0,
}


def start_failure(name: str, failure: Mapping[str, Any] | None) -> BackendStartFailed:
    """Return the error for ``Instance.failure``: reason, details, exit_code, log_tail."""
    failure = failure or {}
    return BackendStartFailed(
        failure.get("details") or f"instance {name} failed to start; its log may say why",
        reason=failure.get("reason", "unknown"),
        exit_code=failure.get("exit_code"),
        log_tail=failure.get("log_tail", []),
    )
