"""Is the process that was asked for ready, and if it never will be, why?

For callers that can only look at the database: the API. The proxy waits on its routing table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from django.utils import timezone

from instances import lifecycle
from instances.errors import (
    BackendStartFailed,
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
)
from instances.models import Instance
from instances.states import DesiredState, Status
from nodes.models import Node

_POLL_SECONDS = 0.2
_RETRY_AFTER_SECONDS = 5
_ENDED: dict[str, object] = {
    "reason": "crashed",
    "details": "the backend ended by itself, exit code 0",
    "exit_code": 0,
}


def wait_until_ready(
    name: str,
    generation: int,
    timeout_seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Instance:
    """The instance, once the process of ``generation`` (or a later one) is ready to answer.

    Looks at the row at least once, so a timeout of 0 asks "is it ready?".

    Raises BackendStartFailed (with the reason), BackendStartTimeout (it is still loading),
    InstanceNotRunning (it was stopped meanwhile) or InstanceNotFound (deleted meanwhile).
    """
    deadline = now() + timeout_seconds
    while True:
        instance = lifecycle.get(name)
        if is_ready(instance, generation):
            return instance
        remaining = deadline - now()
        if remaining <= 0:
            raise _timeout(instance, timeout_seconds)
        sleep(min(_POLL_SECONDS, remaining))


def is_ready(instance: Instance, generation: int) -> bool:
    """Whether the process of ``generation``, or a later one, is ready; raises if none will be.

    A crash that is being retried (``restarting``) is neither.
    """
    if instance.generation < generation:
        # Deleted, and another one of that name has been made since.
        raise InstanceNotFound(instance.name)
    if instance.desired_state == DesiredState.STOPPED:
        raise InstanceNotRunning(f"instance {instance.name} was stopped before it was ready")
    if instance.has_unseen_wish:
        return False
    if instance.status == Status.FAILED:
        raise start_failure(instance)
    if instance.status == Status.STOPPED:
        raise start_failure_from(instance.name, _ENDED)
    return instance.status == Status.RUNNING


def _timeout(instance: Instance, timeout_seconds: float) -> BackendStartTimeout:
    node = instance.node
    if node.kind == Node.Kind.WORKER and not node.is_alive(timezone.now()):
        outlook = f"the worker of node {node.name} has not reported lately: is it running?"
    else:
        outlook = "it goes on starting, GET it to see how far it is"
    return BackendStartTimeout(
        f"instance {instance.name} is still {instance.reported_status.value} after"
        f" {timeout_seconds:g} s; {outlook}",
        reason="timeout",
        exit_code=None,
        log_tail=[],
        retry_after=_RETRY_AFTER_SECONDS,
    )


def start_failure(instance: Instance) -> BackendStartFailed:
    """Why a failed instance failed, as the error to answer with."""
    return start_failure_from(instance.name, instance.failure)


def start_failure_from(name: str, failure: Mapping[str, Any] | None) -> BackendStartFailed:
    """The error for ``Instance.failure``: reason, details, exit_code, log_tail."""
    failure = failure or {}
    return BackendStartFailed(
        failure.get("details") or f"instance {name} failed to start; its log may say why",
        reason=failure.get("reason", "unknown"),
        exit_code=failure.get("exit_code"),
        log_tail=failure.get("log_tail", []),
    )
