"""Is a process that ended by itself started again, and when?

Pure functions over small values: no clock, no process, no database.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_DELAY_SECONDS = 60.0
SHORTEST_STABLE_SECONDS = 60.0


@dataclass(frozen=True)
class RestartPolicy:
    """What the operator said about restarts."""

    auto_restart: bool
    max_restarts: int
    delay_seconds: float


@dataclass(frozen=True)
class Crash:
    """A process that ended by itself, and not well."""

    restarts: int
    """How many restarts it has had since it last was stable, or was asked for."""
    has_been_ready: bool
    """Whether this start, or an earlier process of the same wish, ever got ready to answer."""
    is_curable: bool
    """Whether the same command may fare better next time; a wrong flag never will."""


def restart_delay(policy: RestartPolicy, crash: Crash) -> float | None:
    """Seconds until it is started again; ``None`` if that is the end of it.

    A first start that fails is the end: requests wait for its outcome, and what is wrong with a
    start is nearly always wrong with the next one too.
    """
    may_restart = policy.auto_restart and crash.has_been_ready and crash.is_curable
    if not may_restart or crash.restarts >= policy.max_restarts:
        return None
    # An operator's delay above the usual limit is kept, only not doubled. The exponent is bounded
    # because 2.0 ** 2000 overflows.
    limit = max(policy.delay_seconds, LONGEST_DELAY_SECONDS)
    return min(policy.delay_seconds * 2.0 ** min(crash.restarts, 32), limit)


def stable_seconds(policy: RestartPolicy) -> float:
    """How long it has to stay up to get its restarts back."""
    return max(SHORTEST_STABLE_SECONDS, 10 * policy.delay_seconds)
