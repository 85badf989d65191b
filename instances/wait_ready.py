"""Wait for a requested process to become ready, by polling the database.

For the API. The proxy waits on its routing table instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.utils import timezone

from instances import lifecycle
from instances.desired_state import is_ready
from instances.errors import BackendStartTimeout
from instances.models import Instance
from nodes.models import Node

_POLL_SECONDS = 0.2
_RETRY_AFTER_SECONDS = 5


def wait_until_ready(
    name: str,
    generation: int,
    timeout_seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Instance:
    """Return the instance as soon as the process of ``generation``, or of a later one, is ready.

    The row is read at least once, so a timeout of 0 is a check without waiting.

    Raises BackendStartFailed (with the reason), BackendStartTimeout (still loading),
    InstanceNotRunning (stopped meanwhile) or InstanceNotFound (deleted meanwhile).
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


def _timeout(instance: Instance, timeout_seconds: float) -> BackendStartTimeout:
    node = instance.node
    queue = instance.queue
    if queue and instance.place_in_queue:
        outlook = f"it waits for capacity, {instance.place_in_queue}: {queue['reason']}"
    elif node.kind == Node.Kind.WORKER and not node.is_alive(timezone.now()):
        outlook = f"the worker of node {node.name} has not reported lately; check that it runs"
    else:
        outlook = "the start continues; GET the instance for its status"
    return BackendStartTimeout(
        f"instance {instance.name} is still {instance.reported_status.value} after"
        f" {timeout_seconds:g} s; {outlook}",
        reason="timeout",
        exit_code=None,
        log_tail=[],
        retry_after=_RETRY_AFTER_SECONDS,
    )
