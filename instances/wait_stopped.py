"""Wait for a requested stop to end, by polling the database, before a delete."""

from __future__ import annotations

import time
from collections.abc import Callable

from instances import lifecycle
from instances.desired_state import is_stopping

DEFAULT_WAIT_SECONDS = 5.0
"""Most stops of an idle backend take less: a script may delete right after a stop."""
MAX_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.2


def delete_when_stopped(
    name: str,
    timeout_seconds: float,
    *,
    cause: str,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Delete the instance as soon as a stop that is under way has ended.

    An instance that is not stopping is deleted, or refused, at once. Raises as
    ``lifecycle.delete``: InstanceStopping after the timeout.
    """
    deadline = now() + timeout_seconds
    while is_stopping(lifecycle.get(name)) and (remaining := deadline - now()) > 0:
        sleep(min(_POLL_SECONDS, remaining))
    lifecycle.delete(name, cause=cause)
