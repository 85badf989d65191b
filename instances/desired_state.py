"""What has become of a wish? Rules for whoever looks at a row, or at a copy of one.

The API looks at the row, the proxy at its routing table; both ask here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from instances.errors import BackendStartFailed, InstanceNotFound, InstanceNotRunning
from instances.states import ON_DEMAND, SUPERVISOR, DesiredState, Status


class InstanceState(Protocol):
    """The wish for an instance and what its node has observed."""

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
    """Whether the node has yet to act on the last start or restart that was asked for."""
    return state.observed_generation < state.generation


def should_run(state: InstanceState) -> bool:
    """Whether it runs, or is on its way to, without anybody asking again.

    A failure and an exit of the backend's own accord settle the wish they came of.
    """
    if state.desired_state != DesiredState.RUNNING:
        return False
    return has_pending_generation(state) or state.status not in (Status.FAILED, Status.STOPPED)


def is_stopped_by_supervisor(state: InstanceState) -> bool:
    """Whether it is stopped, or about to be, because nobody used it or others needed its room.

    A request brings it back, even while it is still ending; after an operator's stop none does
    before it has ended.
    """
    return state.desired_state == DesiredState.STOPPED and is_by_supervisor(state.requested_by)


def is_by_supervisor(requested_by: str) -> bool:
    return requested_by.startswith(SUPERVISOR)


def is_by_operator(requested_by: str) -> bool:
    """Whether it was an operator, or a script of theirs; neither a request nor the supervisor."""
    return requested_by != ON_DEMAND and not is_by_supervisor(requested_by)


def is_ready(state: InstanceState, generation: int) -> bool:
    """Whether the process of ``generation``, or a later one, is ready; raises if none will be.

    A crash that is being retried (``restarting``) is neither. Raises BackendStartFailed (with the
    reason), InstanceNotRunning (it was stopped meanwhile) or InstanceNotFound (it was deleted,
    and another one of that name has been made since).
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
    """The error for ``Instance.failure``: reason, details, exit_code, log_tail."""
    failure = failure or {}
    return BackendStartFailed(
        failure.get("details") or f"instance {name} failed to start; its log may say why",
        reason=failure.get("reason", "unknown"),
        exit_code=failure.get("exit_code"),
        log_tail=failure.get("log_tail", []),
    )
