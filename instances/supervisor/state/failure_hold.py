"""Length of the hold after a failed start that a request caused.

A pure function: no clock, no process, no database.
"""

from __future__ import annotations

from instances.activation_hold import LONGEST_FAILURE_HOLD_SECONDS

FIRST_SECONDS = 5.0


def failure_hold(failures: int, *, has_been_ready: bool) -> float:
    """Return the seconds in which no request starts the instance again.

    5 s, doubled with each further failure in a row up to 5 minutes. A backend that was ready has
    answered something, so its first crash holds nothing: the proxy repeats the request that met
    the crash.
    """
    doublings = failures - 2 if has_been_ready else failures - 1
    if doublings < 0:
        return 0.0
    # The exponent is bounded because 2.0 ** 2000 overflows.
    return min(FIRST_SECONDS * 2.0 ** min(doublings, 32), LONGEST_FAILURE_HOLD_SECONDS)
