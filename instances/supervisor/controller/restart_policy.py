"""Restart policy: whether and when a crashed process is started again.

Pure functions over small values: no clock, no process, no database.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_DELAY_SECONDS = 60.0
SHORTEST_STABLE_SECONDS = 60.0


@dataclass(frozen=True)
class RestartPolicy:
    """The restart options of an instance."""

    auto_restart: bool
    max_restarts: int
    delay_seconds: float


@dataclass(frozen=True)
class Crash:
    """A process that ended by itself, by a signal or with an exit code other than 0."""

    restarts: int
    """Restarts since the process was last stable, or was requested."""
    has_been_ready: bool
    """Whether this process, or an earlier one of the same requested start, was ever ready."""
    is_retryable: bool
    """Whether the same command may succeed next time; a wrong flag never does."""


def restart_delay(policy: RestartPolicy, crash: Crash) -> float | None:
    """Return the seconds until the next attempt; ``None`` if the crash is final.

    A first start that fails is final: requests wait for its outcome, and the next attempt nearly
    always fails for the same reason.
    """
    may_restart = policy.auto_restart and crash.has_been_ready and crash.is_retryable
    if not may_restart or crash.restarts >= policy.max_restarts:
        return None
    # An operator's delay above the usual limit is kept, only not doubled. The exponent is bounded
    # because 2.0 ** 2000 overflows.
    limit = max(policy.delay_seconds, LONGEST_DELAY_SECONDS)
    return min(policy.delay_seconds * 2.0 ** min(crash.restarts, 32), limit)


def stable_seconds(policy: RestartPolicy) -> float:
    """Return the time that a process must stay up before its count of restarts is reset."""
    return max(SHORTEST_STABLE_SECONDS, 10 * policy.delay_seconds)
